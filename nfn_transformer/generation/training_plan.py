"""Training of a zoo's networks: settings, learning rate schedule, and the epochs of snapshots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfn_transformer.errors import UserError
from nfn_transformer.weights.spec import TransformerSpec

if TYPE_CHECKING:  # names of snapshots are checked without PyTorch
    from torch import Tensor

WARMUP_SHARE = 0.1
"""Share of the training in which the learning rate rises; afterwards it falls along a cosine to zero."""

BEST = "best"
"""Name of the snapshot after a network's first epoch of its highest test accuracy."""

PERCENT, EPOCHS = "percent", "epochs"
SNAPSHOT_UNITS = (PERCENT, EPOCHS)
"""Units of a snapshot's name: percents of a run's training, or epochs. Percent 1 is the release's name of epoch 1."""


def snapshot_names(text: str, unit: str) -> tuple[str, ...]:
    """Return the names of the snapshots that the text of `--snapshots` lists.

    Raises:
        UserError: a name is no number within the unit's bounds, and not BEST.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    top = 100 if unit == PERCENT else None
    for name in names:
        is_number = name.isascii() and name.isdigit() and not name.startswith("0")
        if name != BEST and not (is_number and (top is None or int(name) <= top)):
            range_ = "from 1 to 100" if top else "of at least 1"
            raise UserError(f"--snapshots {text}: expected whole numbers {range_} ({unit}) or {BEST}, got '{name}'")
    return names


def snapshot_epochs(names: Sequence[str], unit: str, epochs: int) -> dict[str, int]:
    """Return the numbered snapshots of a training of `epochs`: name -> epoch, from 1, after which it is due.

    A training that is too short for a snapshot has none of that name.
    """
    names = [name for name in names if name != BEST]
    if unit == EPOCHS:
        return {name: int(name) for name in names if int(name) <= epochs}
    return {name: 1 if name == "1" else max(1, round(epochs * int(name) / 100)) for name in names}


@dataclass(frozen=True)
class TrainingPlan:
    """Settings that all runs of a population share."""

    spec: TransformerSpec
    """Spec of the networks."""
    seed: int
    """Seed of the zoo."""
    batch_size: int
    """Samples in a batch of each network."""
    crop_padding: int
    """Pixels by which train images are padded before they are cropped at random; 0: no crops."""
    snapshots: tuple[str, ...]
    """Names of snapshots: whole numbers in units of `snapshot_unit`, or BEST."""
    half: bool
    """True if snapshots are rounded to half precision."""
    snapshot_unit: str = PERCENT
    """One of SNAPSHOT_UNITS."""

    def snapshot_epochs(self, epochs: int) -> dict[str, int]:
        """Return the snapshots of a training of `epochs`, without BEST: name -> epoch, from 1, after which it is due.

        A training that is too short for a snapshot has none of that name.
        """
        return snapshot_epochs(self.snapshots, self.snapshot_unit, epochs)

    def names(self, epochs: int) -> tuple[str, ...]:
        """Return the names of the snapshots of a training of `epochs`."""
        numbered = self.snapshot_epochs(epochs)
        return tuple(name for name in self.snapshots if name == BEST or name in numbered)

    def due(self, epoch: int, epochs: int) -> tuple[str, ...]:
        """Return the names of the snapshots that are due after an epoch of a training of `epochs`."""
        numbered = [name for name, due in self.snapshot_epochs(epochs).items() if due == epoch]
        return (*numbered, BEST) if BEST in self.snapshots else tuple(numbered)

    def last_epoch(self, epochs: int) -> int:
        """Return the epoch of the last snapshot, after which training of `epochs` stops; 0 without snapshots."""
        return epochs if BEST in self.snapshots else max(self.snapshot_epochs(epochs).values(), default=0)


def lr_factor(step: int, steps: "Tensor") -> "Tensor":
    """Return the share of the full learning rate at a step, from 0, of trainings with lengths `steps` [n]."""
    steps = steps.double()
    warmup = (WARMUP_SHARE * steps).round().clamp(min=1)
    falling = 0.5 * (1 + (math.pi * (step - warmup) / (steps - warmup).clamp(min=1)).cos())
    return ((step + 1) / warmup).where(step < warmup, falling)
