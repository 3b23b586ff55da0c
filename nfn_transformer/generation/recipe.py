"""Recipe of a zoo: the values that its runs draw, or combine, as a small readable file.

    draw: random            # each run draws every value; or grid: every combination
    runs: 600               # of a random draw (default: --runs); of each combination in a grid (default: 1)
    lr:                     # the optimizers, and the learning rates of each
      sgd: [0.03, 0.1]
      adam: [0.001, 0.01]
    w_init_std: [0.15, 0.3]
    l2_regularize: [1e-8, 1e-4]
    train_fraction: [0.7, 1.0]
    dropout: [0.0, 0.1]
    epochs: [8, 12, 16]
    embed_dim: [16, 32]
    n_attention_heads: [2]
    n_layers: [1, 2]
    mlp_factor: [2]         # hidden width of the blocks' MLPs in multiples of embed_dim

A key that is left out has the project's values (training), or those of the command's flags (sizes, epochs).
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from nfn_transformer.bounded_text import parse_yaml
from nfn_transformer.errors import UserError
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, ZooRun
from nfn_transformer.generation.optimizers import RULES
from nfn_transformer.printable import printable, shown
from nfn_transformer.seeding import make_generator

LEARNING_RATES: dict[str, tuple[float, ...]] = {
    "sgd": (0.03, 0.05, 0.07, 0.1, 0.2, 0.3),
    "sgd_momentum": (0.003, 0.005, 0.007, 0.01, 0.02, 0.03),
    "adam": (0.0003, 0.001, 0.003, 0.005, 0.007, 0.01),
    "rmsprop": (0.0003, 0.001, 0.003, 0.005, 0.007, 0.01),
}
"""Optimizer -> its learning rates."""

_MOST_RUNS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """The values that runs draw or combine, under the keys of the file above."""

    runs: int
    """Number of runs that draw, or of runs of each combination."""
    hidden: int
    """Hidden width D_A if `mlp_factor` is empty."""
    epochs: tuple[int, ...]
    embed_dim: tuple[int, ...]
    n_attention_heads: tuple[int, ...]
    n_layers: tuple[int, ...]
    mlp_factor: tuple[float, ...] = ()
    is_grid: bool = False
    """True if runs are all combinations rather than draws."""
    lr: Mapping[str, tuple[float, ...]] = field(default_factory=LEARNING_RATES.copy)
    w_init_std: tuple[float, ...] = (0.15, 0.2, 0.3, 0.4, 0.5)
    l2_regularize: tuple[float, ...] = (1e-8, 1e-7, 1e-6, 1e-4, 1e-3)
    train_fraction: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0)
    dropout: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2)

    def __post_init__(self):
        for width in self.embed_dim:
            if not self._heads(width):
                counts = ", ".join(map(str, self.n_attention_heads))
                raise UserError(f"--n_attention_heads {counts}: none divides embed_dim {width}")

    def draw(self, seed: int) -> list[ZooRun]:
        """Return all runs, in the order of their numbers.

        A run that draws depends on the seed and on its number alone.
        """
        if not self.is_grid:
            return [self._random(seed, number) for number in range(self.runs)]
        if (count := self._count()) > _MOST_RUNS:
            raise UserError(f"draw: grid: expected at most {_MOST_RUNS:,} runs, got {count:,}")
        combined = itertools.product(self._combinations(), range(self.runs))
        return [_run(number, values) for number, (values, _) in enumerate(combined)]

    def _heads(self, width: int) -> tuple[int, ...]:
        return tuple(heads for heads in self.n_attention_heads if width % heads == 0)

    def _hidden(self, width: int) -> tuple[int, ...]:
        return tuple(max(1, round(factor * width)) for factor in self.mlp_factor) or (self.hidden,)

    def _random(self, seed: int, number: int) -> ZooRun:
        generator = make_generator(seed, "run", number, "hyperparameters")

        def choose(values: tuple):
            return values[int(torch.randint(len(values), (), generator=generator))]

        # The order of the first zoo; values that came later follow.
        optimizer = choose(tuple(self.lr))
        trained = [choose(v) for v in (self.w_init_std, self.l2_regularize, self.train_fraction, self.dropout)]
        lr, width = choose(self.lr[optimizer]), choose(self.embed_dim)
        sizes = [choose(values) for values in (self._heads(width), self.n_layers, self._hidden(width), self.epochs)]
        return _run(number, (optimizer, lr, *trained, width, *sizes))

    def _count(self) -> int:
        """Return the number of runs of a grid."""
        rates = sum(map(len, self.lr.values()))
        training = (self.w_init_std, self.l2_regularize, self.train_fraction, self.dropout)
        sizes = sum(len(self._heads(width)) * len(self._hidden(width)) for width in self.embed_dim)
        return self.runs * rates * math.prod(map(len, (*training, self.n_layers, self.epochs))) * sizes

    def _combinations(self) -> Iterator[tuple]:
        training = (self.w_init_std, self.l2_regularize, self.train_fraction, self.dropout)
        for optimizer, width in itertools.product(self.lr, self.embed_dim):
            sizes = ((width,), self._heads(width), self.n_layers, self._hidden(width), self.epochs)
            for values in itertools.product(self.lr[optimizer], *training, *sizes):
                yield (optimizer, *values)


def _run(number: int, values: tuple) -> ZooRun:
    optimizer, lr, w_init_std, l2_regularize, train_fraction, dropout, width, heads, layers, hidden, epochs = values
    settings = Hyperparameters(optimizer, w_init_std, l2_regularize, train_fraction, dropout, lr)
    return ZooRun(number, settings, Architecture(width, heads, layers, hidden), epochs)


_WHOLE = ("epochs", "embed_dim", "n_attention_heads", "n_layers")
_TOP = {"train_fraction": 1.0, "dropout": 0.95, "mlp_factor": 10_000}
_ABOVE_ZERO = ("train_fraction", "mlp_factor", "w_init_std")


def read_recipe(path: Path, defaults: Mapping[str, Any]) -> Recipe:
    """Read a recipe.

    Args:
        path: of the file.
        defaults: fields of `Recipe` for keys that the file leaves out.

    Raises:
        UserError: the file does not exist or is no recipe; the message names the key and the expected values.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--recipe {path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"--recipe {path}: expected keys with lists of values, as in scripts/zoos/")
    known = {"draw", *(field.name for field in fields(Recipe))} - {"is_grid", "hidden"}
    if unknown := [key for key in content if key not in known]:
        raise UserError(f"--recipe {path}: unknown key '{unknown[0]}', expected {', '.join(sorted(known))}")
    lists = {key: value for key, value in content.items() if key not in ("draw", "runs", "lr")}
    values: dict[str, Any] = {key: _values(path, key, value) for key, value in lists.items()}
    if content.get("draw", "random") not in ("random", "grid"):
        raise UserError(f"--recipe {path}: draw is {shown(content['draw'])}, expected random or grid")
    is_grid = content.get("draw") == "grid"
    if "lr" in content:
        values["lr"] = _rates(path, content["lr"])
    if "runs" in content or is_grid:
        values["runs"] = _number(path, "runs", content.get("runs", 1), whole=True)
    return Recipe(**{**defaults, **values, "is_grid": is_grid})


def _rates(path: Path, value: object) -> dict[str, tuple[float, ...]]:
    rates = value if isinstance(value, dict) else {}
    unknown = [name for name in rates if name not in RULES]
    if unknown or not rates:
        wrong = f"'{unknown[0]}'" if unknown else shown(value)
        raise UserError(f"--recipe {path}: lr has {wrong}, expected optimizers of {', '.join(RULES)}, each with a list")
    return {name: _values(path, f"lr of {name}", value) for name, value in rates.items()}


def _values(path: Path, key: str, value: object) -> tuple:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise UserError(f"--recipe {path}: {key} has no values")
    return tuple(_number(path, key, text, key in _WHOLE) for text in values)


def _number(path: Path, key: str, value: Any, whole: bool) -> float:
    """Return a number within the key's bounds; YAML gives 1e-8 as text."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    low, top = (1.0, _MOST_RUNS) if whole else (0.0, _TOP.get(key, float("inf")))
    is_open = key in _ABOVE_ZERO or key.startswith("lr")
    sound = math.isfinite(number) and low <= number <= top
    if not sound or (whole and number != int(number)) or (is_open and number == 0):
        expected = (
            f"a whole number from 1 to {_MOST_RUNS:,}"
            if whole
            else f"a number {'above' if is_open else 'of at least'} 0"
        )
        expected += f" and at most {_TOP[key]:g}" if key in _TOP else ""
        got = printable(value, 200) if isinstance(value, str) else shown(value)
        raise UserError(f"--recipe {path}: {key} has {got}, expected {expected}")
    return int(number) if whole else number
