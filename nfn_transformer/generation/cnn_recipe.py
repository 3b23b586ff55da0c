"""Recipe of a zoo of CNNs: the ranges from which each network's training is drawn, as a small readable file.

    activation: [relu, tanh]                # each network draws one value of a list
    w_init: [glorot_normal, he_normal, orthogonal, normal, truncated_normal]
    init_std: {log: [0.001, 0.5]}           # between two bounds, evenly in the logarithm; for the last two of w_init
    l2reg: {log: [1e-8, 1e-2]}
    dropout: {even: [0.0, 0.7]}             # between two bounds, evenly
    train_fraction: [0.1, 0.25, 0.5, 1.0]
    optimizer: [adam, sgd, rmsprop]
    learning_rate: {log: [5e-4, 5e-2]}

These are the defaults. They follow the ranges of the Small CNN Zoo (Unterthiner et al. 2020, arXiv 2002.11448), and
were not compared with its table.

Three of w_init are truncated at two standard deviations, which leaves 0.87962566 of the standard deviation. With
truncated_normal, Keras' TruncatedNormal leaves it so as well. Keras' GlorotNormal and HeNormal divide by that number.
Here they do not: their weights are 0.88 times as large as in the Small CNN Zoo.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from nfn_transformer.bounded_text import parse_yaml
from nfn_transformer.errors import UserError
from nfn_transformer.generation.optimizers import RULES
from nfn_transformer.printable import shown
from nfn_transformer.seeding import make_generator

CNN_ACTIVATIONS = ("relu", "tanh")
CNN_INITIALIZATIONS = ("glorot_normal", "he_normal", "orthogonal", "normal", "truncated_normal")


@dataclass(frozen=True)
class Choice:
    """A hyperparameter's values, each as likely as the others."""

    values: tuple

    def draw(self, uniform: float):
        """Return the value of a number in [0, 1)."""
        return self.values[int(uniform * len(self.values))]


@dataclass(frozen=True)
class Range:
    """A hyperparameter's bounds."""

    low: float
    high: float
    is_log: bool
    """True if the logarithm is spread evenly, False if the value is."""

    def draw(self, uniform: float) -> float:
        """Return the value of a number in [0, 1)."""
        if self.is_log:
            return self.low * (self.high / self.low) ** uniform
        return self.low + (self.high - self.low) * uniform


@dataclass(frozen=True)
class CnnSettings:
    """Hyperparameters of a CNN's training, under the names of the Small CNN Zoo."""

    activation: str
    """One of CNN_ACTIVATIONS."""
    w_init: str
    """One of CNN_INITIALIZATIONS."""
    init_std: float
    """Standard deviation of initial weights, for `normal` and `truncated_normal`."""
    l2reg: float
    """Weight decay."""
    dropout: float
    """Probability of dropout after each convolution."""
    train_fraction: float
    """Share of the train images."""
    optimizer: str
    """A key of `optimizers.RULES`."""
    learning_rate: float
    """Learning rate, constant."""


SMALL_CNN_ZOO: Mapping[str, Choice | Range] = {
    "activation": Choice(CNN_ACTIVATIONS),
    "w_init": Choice(CNN_INITIALIZATIONS),
    "init_std": Range(1e-3, 0.5, True),
    "l2reg": Range(1e-8, 1e-2, True),
    "dropout": Range(0.0, 0.7, False),
    "train_fraction": Choice((0.1, 0.25, 0.5, 1.0)),
    "optimizer": Choice(("adam", "sgd", "rmsprop")),
    "learning_rate": Range(5e-4, 5e-2, True),
}
"""Ranges after the Small CNN Zoo's."""


def draw_settings(recipe: Mapping[str, Choice | Range], seed: int, number: int) -> CnnSettings:
    """Return the hyperparameters of a network, which depend on the seed and its number alone."""
    uniforms = torch.rand(len(SMALL_CNN_ZOO), generator=make_generator(seed, "cnn", number), dtype=torch.float64)
    drawn: dict[str, Any] = {
        name: recipe[name].draw(uniform) for name, uniform in zip(SMALL_CNN_ZOO, uniforms.tolist(), strict=True)
    }
    return CnnSettings(**drawn)


_WORDS = {"activation": CNN_ACTIVATIONS, "w_init": CNN_INITIALIZATIONS, "optimizer": tuple(RULES)}
_TOP = {"dropout": 0.95, "train_fraction": 1.0}


def read_cnn_recipe(path: Path) -> dict[str, Choice | Range]:
    """Read a recipe; a key that it leaves out has the range of SMALL_CNN_ZOO.

    Raises:
        UserError: the file cannot be read or is no recipe; the message names the key and the expected values.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--recipe {path}: cannot be read ({error})") from None
    names = [field.name for field in fields(CnnSettings)]
    if not isinstance(content, dict):
        raise UserError(f"--recipe {path}: expected keys with values, of {', '.join(names)}")
    if unknown := [key for key in content if key not in names]:
        raise UserError(f"--recipe {path}: unknown key '{unknown[0]}', expected {', '.join(names)}")
    return {**SMALL_CNN_ZOO, **{key: _range(path, key, value) for key, value in content.items()}}


def _range(path: Path, key: str, value: Any) -> Choice | Range:
    """Return the values of a key."""
    if key in _WORDS:
        words = value if isinstance(value, list) else [value]
        if not words or any(word not in _WORDS[key] for word in words):
            raise UserError(f"--recipe {path}: {key} has {shown(value)}, expected some of {', '.join(_WORDS[key])}")
        return Choice(tuple(words))
    kind = next(iter(value), None) if isinstance(value, dict) else "values"
    numbers = value[kind] if isinstance(value, dict) else value if isinstance(value, list) else [value]
    try:
        numbers = tuple(float(number) for number in numbers)
    except (TypeError, ValueError):
        numbers = ()
    top = _TOP.get(key, math.inf)
    is_open = key not in ("dropout", "l2reg") or kind == "log"
    sound = all(math.isfinite(one) and (one > 0 if is_open else one >= 0) and one <= top for one in numbers)
    if not numbers or not sound or kind not in ("values", "log", "even") or (kind != "values" and len(numbers) != 2):
        bounds = f"{'above' if is_open else 'from'} 0" + (f", at most {top:g}" if top < math.inf else "")
        raise UserError(
            f"--recipe {path}: {key} has {shown(value)}, expected numbers {bounds}, or {{log: [low, high]}} or "
            "{even: [low, high]} of such numbers"
        )
    return Choice(numbers) if kind == "values" else Range(numbers[0], numbers[1], kind == "log")
