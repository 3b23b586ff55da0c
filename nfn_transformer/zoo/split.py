"""Split of a zoo into the checkpoints of training, validation and test: whole runs, drawn by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.errors import ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.seeding import make_generator

TRAIN_SHARE = 0.7
VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class Split:
    """Indices of checkpoints, int64 [n_side], each side in ascending order."""

    train: Tensor
    """checkpoints to learn from"""
    validation: Tensor
    """checkpoints to select the epoch on"""
    test: Tensor
    """checkpoints to measure once"""

    def with_fewer_to_train(self, count: int, seed: int) -> Self:
        """Return the split with `count` of its training checkpoints, drawn one by one by seed; fewer are part of more.

        Raises:
            ZooError: the training side has fewer.
        """
        if count > len(self.train):
            raise ZooError(f"--train_networks {count}: expected at most the {len(self.train)} of the training side")
        drawn = torch.randperm(len(self.train), generator=make_generator(seed, "train networks"))[:count]
        return type(self)(self.train[drawn.sort().values], self.validation, self.test)

    def to_names(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return side -> file names, to be written as JSON; `names` are those of the indexed checkpoints."""
        return {side.name: [names[index] for index in getattr(self, side.name).tolist()] for side in fields(self)}

    @classmethod
    def from_names(cls, record: Mapping[str, Sequence[str]], names: Sequence[str]) -> Self:
        """Return the split that `to_names` recorded, as indices into `names`.

        Raises:
            ZooError: a side is not in the record, or a recorded checkpoint is not among `names`.
        """
        position = {name: index for index, name in enumerate(names)}
        sides = []
        for side in fields(cls):
            if side.name not in record:
                sides_of_record = printable(", ".join(record)) or "none"
                raise ZooError(f"the recorded split has no side '{side.name}'; it has {sides_of_record}")
            absent = [name for name in record[side.name] if name not in position]
            if absent:
                first = quoted(absent[0])
                raise ZooError(f"{len(absent)} checkpoints of the recorded split are not in the zoo: {first} ...")
            sides.append(torch.tensor([position[name] for name in record[side.name]], dtype=torch.int64))
        return cls(*sides)


def split_runs(runs: Sequence[str], seed: int, kept: Tensor | None = None) -> Split:
    """Split checkpoints 70/15/15 by run, so that a run is never on two sides.

    Of n distinct runs, int(0.7 n) are for training, int(0.15 n) for validation, the others for the test.
    The sides depend on the seed and on the set of distinct runs, not on the order of the checkpoints.

    Args:
        runs: run id of each checkpoint.
        seed: of the draw.
        kept: indices [m] of the checkpoints to be split, ascending; all where it is None.

    Raises:
        ZooError: a side would be empty.
    """
    kept = torch.arange(len(runs)) if kept is None else kept
    runs = [runs[index] for index in kept.tolist()]
    distinct = sorted(set(runs))
    train = int(TRAIN_SHARE * len(distinct))
    validation = int(VALIDATION_SHARE * len(distinct))
    test = len(distinct) - train - validation
    if min(train, validation, test) == 0:
        raise ZooError(
            f"too few runs to split: {len(runs)} checkpoints of {len(distinct)} runs give "
            f"{train} runs for training, {validation} for validation and {test} for the test; each must have one"
        )
    order = torch.randperm(len(distinct), generator=make_generator(seed, "split")).tolist()
    side_of = {distinct[run]: (rank >= train) + (rank >= train + validation) for rank, run in enumerate(order)}
    sides = torch.tensor([side_of[run] for run in runs])
    return Split(*(kept[sides == side] for side in range(3)))


def apply_cut_off(labels: Tensor, cut_off: float) -> Tensor:
    """Return the indices [m] of the checkpoints whose accuracy is at least `cut_off`, a fraction in [0, 1].

    Args:
        labels: accuracies [n], float32.
        cut_off: the least accuracy to keep.
    """
    # Rounded as the labels are: the float32 nearest 0.7 is below 0.7, and must not drop the label 0.7.
    least = torch.tensor(cut_off, dtype=labels.dtype)
    return (labels >= least).nonzero().flatten()
