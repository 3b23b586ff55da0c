"""The command line: types of arguments, flags that are real booleans, and how a command ends."""

import argparse
import difflib
import io
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

from nfn_transformer import __version__
from nfn_transformer.errors import UserError
from nfn_transformer.printable import printable_message
from nfn_transformer.resources import SHORT_WAITING

if TYPE_CHECKING:
    import torch

_Number = TypeVar("_Number", int, float)

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

CONSOLE_COMMANDS = {
    "train": ("main", "train a predictor on a zoo, and test it once"),
    "predict": ("predict", "predict accuracies of other checkpoints, or score a predictor"),
    "make-zoo": ("make_zoo", "train a zoo of small transformers"),
    "inspect": ("inspect_checkpoint", "say what a checkpoint is: its family, sizes and symmetries"),
    "reproduce": ("reproduce", "run a grid of trainings, and write its table"),
    "runs": ("runs", "list runs, or compare some of them in a table"),
    "xgb": ("xgb", "train XGBoost on a zoo's weights"),
    "gbm": ("gbm", "train LightGBM or extremely randomised trees on a zoo's weights"),
}
"""Commands of `nfn-transformer`: name -> module of the package that runs it, and a line of help."""

_WORDS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}


def boolean(text: str) -> bool:
    """Parse a boolean: true/yes/1/on or false/no/0/off, in any case."""
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, got '{text}'") from None


def started_as(program: str) -> str:
    """Return the words that start a program, such as main.py: those of the console command where that started this."""
    if not sys.argv[0].startswith("nfn-transformer "):
        return f"python nfn_transformer/{program}"
    modules = {f"{module}.py": name for name, (module, _) in CONSOLE_COMMANDS.items()}
    return f"nfn-transformer {modules[program]}"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Formatter of help that adds the default of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, []) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Parser of a command's flags, whose help ends in examples and whose errors take two lines."""

    def __init__(self, program: str, description: str, examples: Sequence[str]):
        start = started_as(program)
        name = program if start.startswith("python ") else start
        super().__init__(prog=name, description=description, formatter_class=HelpFormatter, allow_abbrev=False)
        self.add_argument("--version", action="version", version=f"nfn-transformer {__version__}")
        self.examples = [example.replace(f"python nfn_transformer/{program}", start) for example in examples]

    def format_help(self) -> str:
        """Return the help of all flags and the examples."""
        return "\n  ".join([f"{super().format_help()}\nexamples:", *self.examples]) + "\n"

    def error(self, message: str) -> NoReturn:
        """Print one line of usage and the error on stderr, and end with exit status 2."""
        unknown = re.search(r"unrecognized arguments: (--\w+)", message)
        if unknown and (close := difflib.get_close_matches(unknown[1], self._option_string_actions, 1, 0.7)):
            message += f"; did you mean {close[0]}?"
        self.exit(EXIT_USER_ERROR, f"usage: {self.prog} [flags]; --help explains all of them\nerror: {message}\n")


class _BooleanAction(argparse.Action):
    """Action of `--flag`, `--flag WORD` and `--no-flag`."""

    def __call__(self, parser, namespace, values, option_string=None):
        if not option_string.startswith("--no-"):
            setattr(namespace, self.dest, True if values is None else values)
        elif values is None:
            setattr(namespace, self.dest, False)
        else:
            parser.error(f"{option_string} takes no value, got '{values}'")


def add_boolean(group, name: str, default: bool | None, help: str) -> None:
    """Declare a boolean flag: `--wandb`, `--wandb False`, `--wandb no` and `--no-wandb` all work."""
    options = (name, f"--no-{name[2:]}")
    group.add_argument(
        *options, action=_BooleanAction, nargs="?", type=boolean, metavar="BOOL", default=default, help=help
    )


def number_in(kind: type[_Number], low: float, high: float = math.inf, above: bool = False) -> Callable[[str], _Number]:
    """Return an argparse type: a finite number of this kind in [low, high], or (low, high] with `above`."""

    def parse(text: str) -> _Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {_KINDS[kind]}, got '{text}'") from None
        finite = kind is int or math.isfinite(value)
        if not finite or not (low < value if above else low <= value) or value > high:
            top = "" if high == math.inf else f" and at most {high}"
            raise argparse.ArgumentTypeError(f"must be {'above' if above else 'at least'} {low}{top}, got {text}")
        return value

    return parse


_KINDS = {int: "a whole number", float: "a number"}


positive_int = number_in(int, 1, 2**31 - 1)
"""Argparse type: number of things, at least one."""


seed_number = number_in(int, 0, 2**63 - 1)
"""Argparse type: seed of a run."""


def channel_counts(text: str) -> tuple[int, ...]:
    """Parse numbers of channels separated by commas, as in `10,10`."""
    return tuple(positive_int(part) for part in text.split(","))


def seed_list(text: str) -> list[int]:
    """Parse different seeds separated by commas, as in `1,2,3`."""
    results = [seed_number(part) for part in text.split(",")]
    if len(set(results)) < len(results):
        raise argparse.ArgumentTypeError(f"names a seed twice: {text}")
    return results


def check_device_name(text: str) -> None:
    """Check the name of a device, which need not be on this machine.

    Raises:
        UserError: the name is not `auto`, `cpu`, `cuda` or `cuda:N`.
    """
    if text != "auto" and _DEVICE.fullmatch(text) is None:
        raise UserError(f"--device {text}: expected auto, cpu, cuda or cuda:N")


_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


def find_device(text: str) -> "torch.device":
    """Return the device named `auto` (CUDA where there is a GPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: the name is another, or the device is not on this machine.
    """
    check_device_name(text)
    import torch  # which takes a second: flags are parsed and checked before

    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if text != "cpu" and int(text.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {text}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device(text)


def run_command(command: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process.

    Closed standard streams get a place, and letters that a stream's encoding lacks are written by backslashes.
    The exit status is the command's own, 2 on a user's mistake, 1 where the system fails, 130 on Ctrl-C.
    """
    message = ""
    try:
        for descriptor in range(3):  # else the next file takes a closed one's number, and libraries write into it
            try:
                os.fstat(descriptor)
            except OSError:
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
        sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # notebooks have other ones
                stream.reconfigure(errors="backslashreplace")
        if not os.environ.keys() & {"OMP_WAIT_POLICY", *SHORT_WAITING}:  # which are the user's choice
            os.environ.update(SHORT_WAITING)
        status = command(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except UserError as error:
        message, status = f"error: {error}", EXIT_USER_ERROR
    except OSError as error:  # a full disk, a closed pipe: nothing that a traceback would explain
        message, status = f"error: {error}", EXIT_FAILURE
    except KeyboardInterrupt:
        message, status = "interrupted", EXIT_INTERRUPTED
    try:
        if message:
            print(printable_message(message), file=sys.stderr)
        sys.stdout.flush()
    except OSError:  # Python would write once more at its end, and report the failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
