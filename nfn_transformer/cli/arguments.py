"""Types of command-line arguments: real booleans, numbers within bounds, lists, devices."""

import argparse
import math
import re
from collections.abc import Callable

import torch

from nfn_transformer.errors import UserError

_WORDS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}


def boolean(text: str) -> bool:
    """A boolean written as a word: true/yes/1/on or false/no/0/off, in any case."""
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, got '{text}'") from None


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, but for flags that have none or whose help tells it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


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


def number_in(kind: type, low: float, high: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number of this kind in [low, high], or (low, high] with `above`."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {_KINDS[kind]}, got '{text}'") from None
        finite = kind is int or math.isfinite(value)
        if not finite or not (low < value if above else low <= value) or value > high:
            top = "" if high == float("inf") else f" and at most {high}"
            raise argparse.ArgumentTypeError(f"must be {'above' if above else 'at least'} {low}{top}, got {text}")
        return value

    return parse


_KINDS = {int: "a whole number", float: "a number"}


positive_int = number_in(int, 1, 2**31 - 1)
"""An argparse type: how many of something, at least one."""


seed_number = number_in(int, 0, 2**63 - 1)
"""An argparse type: the seed of a run."""


def channel_counts(text: str) -> tuple[int, ...]:
    """An argparse type: channel counts separated by commas, as in `10,10`."""
    return tuple(positive_int(part) for part in text.split(","))


def seed_list(text: str) -> list[int]:
    """An argparse type: different seeds separated by commas, as in `1,2,3`."""
    found = [seed_number(part) for part in text.split(",")]
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"names a seed twice: {text}")
    return found


def check_device_name(text: str) -> None:
    """Raise UserError unless the text is `auto`, `cpu`, `cuda` or `cuda:N`; here or overrides."""
    if text != "auto" and _DEVICE.fullmatch(text) is None:
        raise UserError(f"--device {text}: expected auto, cpu, cuda or cuda:N")


_DEVICE = re.compile(r"cpu|cuda(?::(\d{1,3}))?")


def find_device(text: str) -> torch.device:
    """The device named by `auto` (CUDA where there is a GPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: it is none of these, or no such device is on this machine.
    """
    check_device_name(text)
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = _DEVICE.fullmatch(text)
    if text != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {text}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device(text)
