"""What the commands share: real booleans, checked numbers, and one way to end on a user's mistake."""

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from nfn_transformer.errors import UserError

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_WORDS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}


def boolean(text: str) -> bool:
    """A boolean written as a word: true/yes/1/on or false/no/0/off, in any case."""
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, got '{text}'") from None


class _BooleanAction(argparse.Action):
    """`--flag`, `--flag WORD` and `--no-flag`."""

    def __init__(self, option_strings, dest, **kwargs):
        negated = [f"--no-{option[2:]}" for option in option_strings]
        super().__init__([*option_strings, *negated], dest, nargs="?", type=boolean, metavar="BOOL", **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        if not option_string.startswith("--no-"):
            setattr(namespace, self.dest, True if values is None else values)
        elif values is None:
            setattr(namespace, self.dest, False)
        else:
            parser.error(f"{option_string} takes no value, got '{values}'")


def add_boolean(group, name: str, default: bool, help: str) -> None:
    """Declare a boolean flag: `--wandb`, `--wandb False`, `--wandb no` and `--no-wandb` all work."""
    group.add_argument(name, action=_BooleanAction, default=default, help=help)


def number(kind: type, low: float, high: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number of this kind in [low, high], or (low, high] with `above`."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {_KINDS[kind]}, got '{text}'") from None
        if not (low < value if above else low <= value) or not value <= high:
            top = "" if high == float("inf") else f" and at most {high}"
            raise argparse.ArgumentTypeError(f"must be {'above' if above else 'at least'} {low}{top}, got {text}")
        return value

    return parse


_KINDS = {int: "a whole number", float: "a number"}


def channels(text: str) -> tuple[int, ...]:
    """An argparse type: channel counts separated by commas, as in `10,10`."""
    parse = number(int, 1)
    return tuple(parse(part) for part in text.split(","))


def device(text: str) -> torch.device:
    """The device named by `auto`, `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        UserError: no such device is on this machine.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(text)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device {text}: not a device of this machine ({reason}); expected auto, cpu, cuda ..."
        ) from None
    return chosen


def run_command(command: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process.

    The exit status is the command's own, 2 on a user's mistake, 1 where the system fails, 130 on Ctrl-C.
    """
    try:
        status = command(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = EXIT_USER_ERROR
    except OSError as error:  # a full disk, a closed pipe: nothing that a traceback would explain
        print(f"error: {error}", file=sys.stderr)
        status = EXIT_FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)
