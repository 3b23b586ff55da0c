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

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from nfn_transformer.generation.optimizers import RULES
from nfn_transformer.generation.ranges import Choice, Drawn, KeyRules, Range, read_keys, read_range
from nfn_transformer.seeding import make_generator

CNN_ACTIVATIONS = ("relu", "tanh")
CNN_INITIALIZATIONS = ("glorot_normal", "he_normal", "orthogonal", "normal", "truncated_normal")


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


SMALL_CNN_ZOO: Mapping[str, Drawn] = {
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


def draw_settings(recipe: Mapping[str, Drawn], seed: int, number: int) -> CnnSettings:
    """Return the hyperparameters of a network, which depend on the seed and its number alone."""
    uniforms = torch.rand(len(SMALL_CNN_ZOO), generator=make_generator(seed, "cnn", number), dtype=torch.float64)
    drawn: dict[str, Any] = {
        name: recipe[name].draw(uniform, number) for name, uniform in zip(SMALL_CNN_ZOO, uniforms.tolist(), strict=True)
    }
    return CnnSettings(**drawn)


_RULES = KeyRules(
    words={"activation": CNN_ACTIVATIONS, "w_init": CNN_INITIALIZATIONS, "optimizer": tuple(RULES)},
    top={"dropout": 0.95, "train_fraction": 1.0},
    may_be_zero=("dropout", "l2reg"),
)


def read_cnn_recipe(path: Path) -> dict[str, Drawn]:
    """Read a recipe; a key that it leaves out has the range of SMALL_CNN_ZOO.

    Raises:
        UserError: the file cannot be read or is no recipe; the message names the key and the expected values.
    """
    content = read_keys(path, tuple(field.name for field in fields(CnnSettings)))
    return {**SMALL_CNN_ZOO, **{key: read_range(path, key, value, _RULES) for key, value in content.items()}}
