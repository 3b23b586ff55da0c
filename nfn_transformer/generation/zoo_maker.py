"""Making a zoo: training its runs in populations, a share of them in each of several processes, and writing it."""

import csv
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.atomic_files import write_text
from nfn_transformer.errors import UserError
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, Run, run_spec
from nfn_transformer.generation.parts import WorkFolder
from nfn_transformer.generation.population import TrainedPopulation, train_population
from nfn_transformer.generation.release import (
    MetadataRow,
    checkpoint_bytes,
    checkpoint_name,
    metadata_bytes,
    writing_zoo,
)
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.snapshots import NOT_TAKEN, Snapshot
from nfn_transformer.generation.streams import train_samples
from nfn_transformer.generation.training_plan import PERCENT, TrainingPlan

FORMAT_VERSION = 3
"""Raised whenever the same configuration would give other networks, so that parts of both never mix."""


@dataclass(frozen=True)
class ZooPlan:
    """A whole zoo.

    Fields: out, where it goes; dataset, its name; runs, in the order of their numbers; population, how many networks
    train together at most; patch, pixels of a side of an image's patch; and the rest as in `TrainingPlan`.
    """

    out: Path
    dataset: str
    runs: Sequence[Run]
    population: int
    patch: int
    seed: int
    batch_size: int
    crop_padding: int
    snapshots: tuple[str, ...]
    half: bool
    snapshot_unit: str = PERCENT

    def training(self, like: Run, data: TaskData) -> TrainingPlan:
        """How runs of the same sizes as this one are trained.

        Raises:
            UserError: networks of this size cannot read the data, or this run has less than a batch of it, or no
                snapshot.
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

    def populations(self) -> list[list[Run]]:
        """Runs that train together: at most `population`, all of one size, and of trainings about as long."""
        found = []
        for _, same_size in groupby(sorted(self.runs, key=_length_within_size), key=_size):
            runs = list(same_size)
            # Equal parts rather than full ones and a small rest, which would train slowly.
            count = -(-len(runs) // self.population)
            parts = (runs[part * len(runs) // count : (part + 1) * len(runs) // count] for part in range(count))
            found += [sorted(part, key=lambda run: (run.settings.optimizer, run.number)) for part in parts]
        return found

    def configuration(self, data: TaskData) -> dict[str, object]:
        """All that the networks depend on. The device is not part: a zoo may be finished overrides."""
        own = {name: getattr(self, name) for name in _CONFIGURED}
        return {"format": FORMAT_VERSION, **own, "runs": [asdict(run) for run in self.runs], "data": data.digest()}


_CONFIGURED = (
    *("dataset", "population", "patch", "seed", "batch_size", "crop_padding", "snapshots", "snapshot_unit", "half"),
)


def _size(run: Run) -> tuple:
    return astuple(run.architecture)


def _length_within_size(run: Run) -> tuple:
    return (*_size(run), run.epochs * run.settings.train_fraction, run.number)


@dataclass(frozen=True)
class DivergedRun:
    """A run of which there are no checkpoints from the epoch on in which its weights or gradients were not finite."""

    run: Run
    epoch: int


@dataclass(frozen=True)
class MadeZoo:
    """What was made: accuracies [checkpoints] of what is in the zoo; what is not: runs that diverged, and how many
    checkpoints of others are not finite in half precision."""

    accuracies: Tensor
    diverged: list[DivergedRun]
    overflown: int


def train_share(plan: ZooPlan, data: TaskData, device: torch.device, work: WorkFolder) -> None:
    """Train all populations that are not finished and that no other process is at.

    Raises:
        UserError: a population does not fit into the device's memory.
    """
    on_device = data.to(device)
    groups = plan.populations()
    with Progress(plan, data) as progress:
        for number, runs in enumerate(groups):
            with work.claim(number) as is_mine:
                if not is_mine:
                    progress.skip(runs)
                    continue
                work.save(number, _trained(plan, runs, on_device, progress))


def _trained(plan: ZooPlan, runs: Sequence[Run], data: TaskData, progress: "Progress") -> TrainedPopulation:
    try:
        return train_population(plan.training(runs[0], data), runs, data, progress.after_epoch)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--population {plan.population}: {len(runs)} networks at once do not fit into the device's memory "
            f"({str(error).splitlines()[0]}); delete {WorkFolder(plan.out).path} and choose a smaller number"
        ) from None


class Progress:
    """A bar of network-epochs that tells runs, networks per second and the time left."""

    def __init__(self, plan: ZooPlan, data: TaskData):
        self._last_epoch = {run.number: plan.training(run, data).last_epoch(run.epochs) for run in plan.runs}
        self._runs, self._done, self._own = len(plan.runs), 0.0, 0.0
        total = sum(self._last_epoch.values())
        self._bar = tqdm(total=total, unit="network-epoch", smoothing=0.05, dynamic_ncols=True, leave=False)
        self._start = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def skip(self, runs: Sequence[Run]) -> None:
        """Count work that is finished, or another's, without taking it for speed."""
        epochs = sum(self._last_epoch[run.number] for run in runs)
        self._bar.initial += epochs
        self._bar.n += epochs
        self._tell(len(runs))

    def after_epoch(self, runs: Sequence[Run]) -> None:
        """Count an epoch of each of these runs."""
        share = sum(1 / self._last_epoch[run.number] for run in runs)
        self._own += share
        self._bar.update(len(runs))
        self._tell(share)

    def _tell(self, done: float) -> None:
        self._done += done
        rate = self._own / max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix_str(f"{self._done:.0f}/{self._runs} runs, {rate:.2f} networks/s")


def write_zoo(plan: ZooPlan, data: TaskData, work: WorkFolder, report: Callable[[MadeZoo], object]) -> None:
    """Write the zoo from a work folder in which all is finished, and delete that folder.

    Args:
        report: called when all is written, before the zoo appears at its place.

    Raises:
        ZooError: a part is damaged.
    """
    rows: list[tuple[int, int, MetadataRow]] = []
    diverged: list[DivergedRun] = []
    overflown = 0
    with writing_zoo(plan.out, work.scratch) as add:
        for number, runs in enumerate(plan.populations()):
            trained, training = work.load(number), plan.training(runs[0], data)
            diverged += [
                DivergedRun(run, int(epoch)) for run, epoch in zip(runs, trained.diverged, strict=True) if epoch
            ]
            for order, (label, snapshot) in enumerate(trained.snapshots.items()):
                wanted = torch.tensor([label in training.names(run.epochs) for run in runs])
                overflown += int((wanted & (snapshot.correct == NOT_TAKEN) & (trained.diverged == 0)).sum())
                for place, accuracy in _sound(snapshot, len(data.test.labels)):
                    name = checkpoint_name(plan.dataset, f"{plan.seed:02d}z{runs[place].number:05d}", label, accuracy)
                    rows.append((runs[place].number, order, MetadataRow(runs[place], name, label, accuracy)))
                    add(name, checkpoint_bytes({key: state[place] for key, state in snapshot.state.items()}))
        ordered = [row for *_, row in sorted(rows, key=lambda found: found[:2])]
        for name, content in data.shared_files().items():
            add(f"{plan.dataset}/{name}", content)
        add(f"metadata/{plan.dataset}.csv", metadata_bytes(ordered, plan.seed, plan.dataset, data.label_column))
        report(MadeZoo(torch.tensor([row.accuracy for row in ordered], dtype=torch.float64), diverged, overflown))
    work.remove()


def _sound(snapshot: Snapshot, test_samples: int) -> Iterator[tuple[int, float]]:
    """Place and accuracy of the networks of which there is this snapshot."""
    for place, correct in enumerate(snapshot.correct.tolist()):
        if correct != NOT_TAKEN:
            yield place, correct / test_samples


def runs_table(runs: Sequence[Run], epochs: Sequence[int] | None = None) -> str:
    """Runs as CSV; with `epochs`, those in which they diverged."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for kind in (Hyperparameters, Architecture) for field in fields(kind)]
    writer.writerow(["run", *names, "epochs", *(["diverged_in_epoch"] if epochs is not None else [])])
    for place, run in enumerate(runs):
        end = [epochs[place]] if epochs is not None else []
        writer.writerow([run.number, *astuple(run.settings), *astuple(run.architecture), run.epochs, *end])
    return text.getvalue()


@contextmanager
def making(plan: ZooPlan, data: TaskData) -> Iterator[WorkFolder]:
    """The work folder of a zoo that is not there yet, owned while this holds; runs are listed in it as `runs.csv`.

    Raises:
        UserError: something is at `plan.out` already, an unfinished zoo of another configuration is beside it, or
            another process is making it.
    """
    if plan.out.exists():
        raise UserError(f"--out {plan.out}: is already there; name another place or delete it")
    work = WorkFolder(plan.out)
    with work.owned(plan.configuration(data)):
        for name, tensor in data.computed().items():
            work.keep(name, tensor)
        write_text(work.path / "runs.csv", runs_table(plan.runs))
        yield work
