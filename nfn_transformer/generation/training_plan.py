"""How the networks of a zoo are trained, and when snapshots of them are taken."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.weights.spec import TransformerSpec

WARMUP_SHARE = 0.1
"""Share of the training during which the learning rate rises; then it falls along a cosine to zero."""

BEST = "best"
"""The snapshot after the epoch with the highest test accuracy, the first of them, each network's own."""

PERCENT, EPOCHS = "percent", "epochs"
SNAPSHOT_UNITS = (PERCENT, EPOCHS)
"""What a snapshot's name counts: percents of a run's training, where 1 is the release's name of its first epoch, or
epochs, whatever the length of the training."""


@dataclass(frozen=True)
class TrainingPlan:
    """How every population of a zoo is trained.

    Args:
        snapshots: names of snapshots, whole numbers in units of `snapshot_unit`, or BEST.
        half: whether snapshots are rounded to half precision.
    """

    spec: TransformerSpec
    seed: int
    batch_size: int
    crop_padding: int
    snapshots: tuple[str, ...]
    half: bool
    snapshot_unit: str = PERCENT

    def snapshot_epochs(self, epochs: int) -> dict[str, int]:
        """Of a training of so many epochs: name, without the best, -> the epoch, from 1, after which it is taken.

        A training that is too short for a snapshot has none of that name.
        """
        names = [name for name in self.snapshots if name != BEST]
        if self.snapshot_unit == EPOCHS:
            return {name: int(name) for name in names if int(name) <= epochs}
        return {name: 1 if name == "1" else max(1, round(epochs * int(name) / 100)) for name in names}

    def names(self, epochs: int) -> tuple[str, ...]:
        """Names of the snapshots of a training of so many epochs."""
        given = self.snapshot_epochs(epochs)
        return tuple(name for name in self.snapshots if name == BEST or name in given)

    def due(self, epoch: int, epochs: int) -> tuple[str, ...]:
        """Names of the snapshots after this epoch of a training of so many."""
        given = [name for name, when in self.snapshot_epochs(epochs).items() if when == epoch]
        return (*given, BEST) if BEST in self.snapshots else tuple(given)

    def last_epoch(self, epochs: int) -> int:
        """Epochs that are trained of so many: no snapshot shows what comes after. 0 where there is no snapshot."""
        return epochs if BEST in self.snapshots else max(self.snapshot_epochs(epochs).values(), default=0)


def lr_factor(step: int, steps: Tensor) -> Tensor:
    """Share of the full learning rate at `step` of 0 .. steps - 1, for trainings of several lengths `steps` [n]."""
    steps = steps.double()
    warmup = (WARMUP_SHARE * steps).round().clamp(min=1)
    falling = 0.5 * (1 + torch.cos(math.pi * (step - warmup) / (steps - warmup).clamp(min=1)))
    return torch.where(step < warmup, (step + 1) / warmup, falling)
