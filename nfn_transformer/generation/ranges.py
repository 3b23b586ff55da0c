"""Values from which hyperparameters are drawn, and their reading from a recipe.

optimizer: [adam, sgd]                  # each network draws one value of a list
learning_rate: {log: [5e-4, 5e-2]}      # between two bounds, evenly in the logarithm
dropout: {even: [0.0, 0.7]}             # between two bounds, evenly
epochs: {cycle: [0, 1, 2, 5]}           # in turn: network i has value i mod 4
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfn_transformer.bounded_text import parse_yaml
from nfn_transformer.errors import UserError
from nfn_transformer.printable import shown


@dataclass(frozen=True)
class Choice:
    """A hyperparameter's values, each as likely as the others."""

    values: tuple

    def draw(self, uniform: float, number: int = 0):
        """Return the value of a number in [0, 1)."""
        return self.values[int(uniform * len(self.values))]


@dataclass(frozen=True)
class Cycle:
    """A hyperparameter's values, which networks have in turn."""

    values: tuple

    def draw(self, uniform: float, number: int = 0):
        """Return the value of a network's number."""
        return self.values[number % len(self.values)]


@dataclass(frozen=True)
class Range:
    """A hyperparameter's bounds."""

    low: float
    high: float
    is_log: bool
    """True if the logarithm is spread evenly, False if the value is."""

    def draw(self, uniform: float, number: int = 0) -> Any:
        """Return the value of a number in [0, 1)."""
        if self.is_log:
            return self.low * (self.high / self.low) ** uniform
        return self.low + (self.high - self.low) * uniform


Drawn = Choice | Cycle | Range


@dataclass(frozen=True)
class KeyRules:
    """Values that the keys of a recipe take."""

    words: Mapping[str, tuple[str, ...]]
    """Key -> its words; all others have numbers."""
    top: Mapping[str, float]
    """Key -> its largest value."""
    may_be_zero: tuple[str, ...]
    """Keys whose values may be 0."""
    whole: tuple[str, ...] = field(default=())
    """Keys of whole numbers."""


def read_keys(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of a recipe: key -> value.

    Raises:
        UserError: the file cannot be read, or has another key than `names`.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--recipe {path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"--recipe {path}: expected keys with values, of {', '.join(names)}")
    if unknown := [key for key in content if key not in names]:
        raise UserError(f"--recipe {path}: unknown key '{unknown[0]}', expected {', '.join(names)}")
    return content


def read_range(path: Path, key: str, value: Any, rules: KeyRules) -> Drawn:
    """Return the values of a recipe's key.

    Raises:
        UserError: it has no such values; the message names the expected ones.
    """
    if words := rules.words.get(key):
        chosen = value if isinstance(value, list) else [value]
        if not chosen or any(word not in words for word in chosen):
            raise UserError(f"--recipe {path}: {key} has {shown(value)}, expected some of {', '.join(words)}")
        return Choice(tuple(chosen))
    kind, given = "values", value
    if isinstance(value, dict):
        kind, given = next(iter(value.items())) if len(value) == 1 else ("several", value)
    try:
        numbers = tuple(float(number) for number in (given if isinstance(given, list) else [given]))
    except (TypeError, ValueError):
        numbers = ()
    top, is_whole = rules.top.get(key, math.inf), key in rules.whole
    is_open = key not in rules.may_be_zero or kind == "log"
    sound = all(math.isfinite(one) and (one > 0 if is_open else one >= 0) and one <= top for one in numbers)
    ranges = () if is_whole else ("log", "even")
    is_kind = kind in ("values", "cycle") or (kind in ranges and len(numbers) == 2)
    if not numbers or not sound or not is_kind or (is_whole and any(one != int(one) for one in numbers)):
        bounds = f"{'above' if is_open else 'from'} 0" + (f", at most {top:g}" if top < math.inf else "")
        expected = f"{'whole ' if is_whole else ''}numbers {bounds}, or "
        expected += "{cycle: [...]}" if is_whole else "{log: [low, high]} or {even: [low, high]}"
        raise UserError(f"--recipe {path}: {key} has {shown(value)}, expected {expected} of such numbers")
    if is_whole:
        numbers = tuple(map(int, numbers))
    if kind in ("log", "even"):
        return Range(numbers[0], numbers[1], kind == "log")
    return Cycle(numbers) if kind == "cycle" else Choice(numbers)
