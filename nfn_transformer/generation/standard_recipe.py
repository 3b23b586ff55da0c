"""Recipe of a zoo of standard transformers: what each network's training and sizes are drawn from.

    runs: 600
    lr:                                     # the optimizers, and the learning rates of each
      adam: {log: [3e-4, 1e-2]}
      sgd_momentum: {log: [1e-2, 0.15]}
    schedule: cosine                        # or constant; both after a warm-up
    w_init_std: {log: [0.02, 0.3]}          # standard deviation of initial weights; they are cut off at two of it
    l2_regularize: {log: [1e-7, 1e-3]}
    dropout: {even: [0.0, 0.3]}
    train_fraction: [0.25, 0.5, 1.0]
    epochs: [6, 9, 12, 18]                  # {cycle: [0, 1, 2]}: in turn; 0 is a network that is not trained
    embed_dim: [32]
    n_attention_heads: [4]
    n_layers: [2]
    mlp_factor: [2]                         # hidden width of the MLPs in multiples of embed_dim
    head_dim: [16]                          # of simple_vit and llama; otherwise embed_dim / n_attention_heads

A key that is left out has these values. Flags of the command stand for sizes and epochs that a recipe leaves out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from nfn_transformer.errors import UserError
from nfn_transformer.generation.optimizers import RULES
from nfn_transformer.generation.ranges import Choice, Drawn, KeyRules, Range, read_keys, read_range
from nfn_transformer.generation.standard_networks import StandardSizes
from nfn_transformer.printable import shown
from nfn_transformer.seeding import make_generator

SCHEDULES = ("cosine", "constant")
"""Courses of the learning rate after the warm-up: along a cosine to zero, or as it is."""

_TWICE, _COSINE, _FRACTIONS = Choice((2.0,)), Choice(("cosine",)), Choice((0.25, 0.5, 1.0))
_INITIAL, _DECAY, _DROPPED = Range(0.02, 0.3, True), Range(1e-7, 1e-3, True), Range(0.0, 0.3, False)


@dataclass(frozen=True)
class StandardSettings:
    """Hyperparameters of a network's training, under the names of the metadata."""

    optimizer: str
    """A key of `optimizers.RULES`."""
    lr: float
    """Learning rate after the warm-up."""
    schedule: str
    """One of SCHEDULES."""
    w_init_std: float
    """Standard deviation of initial weights, before they are cut off at two of it."""
    l2_regularize: float
    """Weight decay."""
    dropout: float
    """Probability of dropout, of the embedded tokens and of what each half block adds."""
    train_fraction: float
    """Share of the train samples."""
    epochs: int
    """Length of the training; 0: none."""


@dataclass(frozen=True)
class StandardRun:
    """One network to train."""

    settings: StandardSettings
    """Hyperparameters."""
    sizes: StandardSizes
    """Sizes."""


@dataclass(frozen=True)
class StandardRecipe:
    """The values that networks draw, under the keys of the file above."""

    runs: int
    """Count of networks."""
    epochs: Drawn
    embed_dim: Drawn
    n_attention_heads: Drawn
    n_layers: Drawn
    hidden: Drawn | None = None
    """Hidden neurons; None: by `mlp_factor`."""
    mlp_factor: Drawn = _TWICE
    head_dim: Drawn | None = None
    """Width of a head; None: embed_dim / n_attention_heads."""
    lr: Mapping[str, Drawn] | None = None
    """Optimizer -> its learning rates; None: STANDARD_RATES."""
    schedule: Drawn = _COSINE
    w_init_std: Drawn = _INITIAL
    l2_regularize: Drawn = _DECAY
    dropout: Drawn = _DROPPED
    train_fraction: Drawn = _FRACTIONS

    def draw(self, seed: int) -> list[StandardRun]:
        """Return all networks, in the order of their numbers; each depends on the seed and its number alone.

        Raises:
            UserError: the heads do not divide a width.
        """
        return [self._draw(seed, number) for number in range(self.runs)]

    def _draw(self, seed: int, number: int) -> StandardRun:
        rates = self.lr or STANDARD_RATES
        generator = make_generator(seed, "standard", number)
        uniforms = iter(torch.rand(16, generator=generator, dtype=torch.float64).tolist())
        optimizer = Choice(tuple(rates)).draw(next(uniforms))
        drawn: dict[str, Any] = {"lr": rates[optimizer].draw(next(uniforms), number)}
        names = ("schedule", "w_init_std", "l2_regularize", "dropout", "train_fraction", "epochs")
        drawn |= {name: getattr(self, name).draw(next(uniforms), number) for name in names}
        width, layers = (each.draw(next(uniforms), number) for each in (self.embed_dim, self.n_layers))
        heads = self.n_attention_heads.draw(next(uniforms), number)
        factor = self.mlp_factor.draw(next(uniforms), number)
        hidden = max(1, round(factor * width)) if self.hidden is None else self.hidden.draw(next(uniforms), number)
        if self.head_dim is None and width % heads:
            raise UserError(f"--n_attention_heads {heads}: does not divide embed_dim {width}")
        head = width // heads if self.head_dim is None else self.head_dim.draw(next(uniforms), number)
        return StandardRun(StandardSettings(optimizer, **drawn), StandardSizes(width, heads, layers, hidden, head))


STANDARD_RATES: Mapping[str, Drawn] = {
    "adam": Range(3e-4, 1e-2, True),
    "rmsprop": Range(3e-4, 1e-2, True),
    "sgd_momentum": Range(1e-2, 0.15, True),
}
"""Optimizer -> its learning rates."""

_RULES = KeyRules(
    words={"schedule": SCHEDULES},
    top={"dropout": 0.95, "train_fraction": 1.0, "runs": 1_000_000, "epochs": 100_000},
    may_be_zero=("dropout", "l2_regularize", "epochs"),
    whole=("runs", "epochs", "embed_dim", "n_attention_heads", "n_layers", "hidden", "head_dim"),
)


def read_standard_recipe(path: Path, defaults: StandardRecipe) -> StandardRecipe:
    """Read a recipe; a key that it leaves out has its value in `defaults`.

    Raises:
        UserError: the file cannot be read or is no recipe; the message names the key and the expected values.
    """
    content = read_keys(path, tuple(field.name for field in fields(StandardRecipe)))
    values: dict[str, Any] = {
        key: read_range(path, key, value, _RULES) for key, value in content.items() if key != "lr"
    }
    if "runs" in values:
        if isinstance(content["runs"], list | dict):
            raise UserError(f"--recipe {path}: runs has {shown(content['runs'])}, expected one whole number")
        values["runs"] = values["runs"].draw(0.0)
    if "lr" in content:
        rates = content["lr"] if isinstance(content["lr"], dict) else {}
        unknown = [name for name in rates if name not in RULES]
        if unknown or not rates:
            wrong = f"'{unknown[0]}'" if unknown else shown(content["lr"])
            expected = f"optimizers of {', '.join(RULES)}, each with values"
            raise UserError(f"--recipe {path}: lr has {wrong}, expected {expected}")
        values["lr"] = {name: read_range(path, f"lr of {name}", each, _RULES) for name, each in rates.items()}
    return replace(defaults, **values)
