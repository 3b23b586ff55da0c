"""Plan of a zoo: its runs, their division into populations, and all settings that its networks depend on."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import groupby
from pathlib import Path

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.errors import UserError
from nfn_transformer.generation.batches import train_samples
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, ZooRun, run_spec
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.training_plan import PERCENT, TrainingPlan
from nfn_transformer.zoo.metadata import DEFAULT_EPOCH

NETWORKS_VERSION = 3
"""Raised whenever the same configuration gives other networks, so that parts of both never mix."""


@dataclass(frozen=True)
class ZooPlan:
    """A whole zoo."""

    out: Path
    """Path of the zoo."""
    dataset: str
    """Name of its data set."""
    runs: Sequence[ZooRun]
    """Runs in the order of their numbers."""
    population: int
    """Largest number of networks that train together."""
    patch: int
    """Side of an image's patch in pixels."""
    seed: int
    """Seed of all random choices."""
    batch_size: int
    """See `TrainingPlan`, also for the fields below."""
    crop_padding: int
    snapshots: tuple[str, ...]
    half: bool
    snapshot_unit: str = PERCENT

    def training(self, like: ZooRun, data: TaskData) -> TrainingPlan:
        """Return the training of runs with the architecture of `like`.

        Raises:
            UserError: networks of this architecture cannot read the data, or the run has less than a batch of it,
                or the run has no snapshot.
        """
        plan = TrainingPlan(
            spec=run_spec(like.architecture, data, self.patch),
            seed=self.seed,
            batch_size=self.batch_size,
            crop_padding=self.crop_padding,
            snapshots=self.snapshots,
            half=self.half,
            snapshot_unit=self.snapshot_unit,
        )
        samples = train_samples(like.settings.train_fraction, len(data.train.labels))
        if samples < self.batch_size:
            raise UserError(f"--batch_size {self.batch_size}: run {like.number} has only {samples} train samples")
        if not plan.last_epoch(like.epochs):
            names = ",".join(self.snapshots)
            raise UserError(f"--snapshots {names}: run {like.number} has only {like.epochs} epochs, so none of them")
        return plan

    def populations(self) -> list[list[ZooRun]]:
        """Return the runs that train together: at most `population`, of one architecture and similar lengths."""
        populations = []
        for _, group in groupby(sorted(self.runs, key=_length_within_size), key=_size):
            runs = list(group)
            # Equal parts rather than full ones and a small rest, which would train slowly.
            count = -(-len(runs) // self.population)
            parts = (runs[part * len(runs) // count : (part + 1) * len(runs) // count] for part in range(count))
            populations += [sorted(part, key=lambda run: (run.settings.optimizer, run.number)) for part in parts]
        return populations

    def reading(self, data: TaskData) -> str:
        """Return the flags with which main.py reads the zoo, where its defaults do not."""
        flags = [] if DEFAULT_EPOCH in self.snapshots else [f"--ckpt_epoch {self.snapshots[-1]}"]
        if len(set(map(_size, self.runs))) > 1:
            flags.append("--all_sizes True --enc_mode complete")
        if self.training(self.runs[0], data).spec.embedding is None:
            flags.append("--emb_mode no")
        return " ".join(flags)

    def configuration(self, data: TaskData) -> dict[str, object]:
        """Return all that the networks depend on. The device is no part: a zoo may be finished on another one."""
        settings = {name: getattr(self, name) for name in _CONFIGURED}
        runs = [asdict(run) for run in self.runs]
        return {"format": NETWORKS_VERSION, **settings, "runs": runs, "data": data.digest()}


_CONFIGURED = (
    *("dataset", "population", "patch", "seed", "batch_size", "crop_padding", "snapshots", "snapshot_unit", "half"),
)


def _size(run: ZooRun) -> tuple:
    return astuple(run.architecture)


def _length_within_size(run: ZooRun) -> tuple:
    return (*_size(run), run.epochs * run.settings.train_fraction, run.number)


def runs_table(runs: Sequence[ZooRun], diverged: Sequence[int] | None = None) -> str:
    """Return runs as CSV, with the epochs in which they diverged if these are given."""
    names = [field.name for kind in (Hyperparameters, Architecture) for field in fields(kind)]
    header = ["run", *names, "epochs", *(["diverged_in_epoch"] if diverged is not None else [])]
    rows = [[run.number, *astuple(run.settings), *astuple(run.architecture), run.epochs] for run in runs]
    if diverged is not None:
        rows = [[*row, epoch] for row, epoch in zip(rows, diverged, strict=True)]
    return csv_text(header, rows)
