"""Making of a zoo: training its populations, a share of them in each of several processes, and writing it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.atomic_files import write_text
from nfn_transformer.errors import UserError
from nfn_transformer.generation.hyperparameters import ZooRun
from nfn_transformer.generation.population import TrainedPopulation, train_population
from nfn_transformer.generation.progress_bar import ProgressBar
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.snapshots import NOT_TAKEN
from nfn_transformer.generation.work_folder import WorkFolder
from nfn_transformer.generation.zoo_plan import ZooPlan, runs_table
from nfn_transformer.generation.zoo_writer import (
    CheckpointEntry,
    checkpoint_bytes,
    checkpoint_name,
    metadata_bytes,
    open_zoo,
)


@dataclass(frozen=True)
class DivergedRun:
    """A run whose weights or gradients were not finite; it has no later checkpoints."""

    run: ZooRun
    """The run."""
    epoch: int
    """First epoch without a checkpoint."""


@dataclass(frozen=True)
class ZooSummary:
    """Contents of a new zoo."""

    accuracies: Tensor
    """Accuracies [checkpoints] in [0, 1]."""
    diverged: list[DivergedRun]
    """Runs that diverged."""
    overflows: int
    """Checkpoints of other runs that are left out, as they are not finite in half precision."""


@contextmanager
def open_work_folder(plan: ZooPlan, data: TaskData) -> Iterator[WorkFolder]:
    """Own the work folder of a new zoo, with its runs listed in `runs.csv`.

    Raises:
        UserError: `plan.out` exists, an unfinished zoo of another configuration lies beside it, or another process
            makes the zoo.
    """
    if plan.out.exists():
        raise UserError(f"--out {plan.out}: already exists; choose another path or delete it")
    work = WorkFolder(plan.out)
    with work.owned(plan.configuration(data)):
        for name, tensor in data.computed().items():
            work.save_tensor(name, tensor)
        write_text(work.path / "runs.csv", runs_table(plan.runs))
        yield work


def train_share(plan: ZooPlan, data: TaskData, device: torch.device, work: WorkFolder) -> None:
    """Train all populations that are not finished and that no other process trains.

    Raises:
        UserError: a population does not fit into the device's memory.
    """
    on_device = data.to(device)
    with ProgressBar(plan, data) as bar:
        for number, runs in enumerate(plan.populations()):
            with work.claim(number) as is_claimed:
                if is_claimed:
                    work.save(number, _train(plan, runs, on_device, bar))
                else:
                    bar.skip(runs)


def _train(plan: ZooPlan, runs: Sequence[ZooRun], data: TaskData, bar: ProgressBar) -> TrainedPopulation:
    try:
        return train_population(plan.training(runs[0], data), runs, data, bar.after_epoch)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--population {plan.population}: {len(runs)} networks at once do not fit into the device's memory "
            f"({str(error).splitlines()[0]}); delete {WorkFolder(plan.out).path} and choose a smaller number"
        ) from None


def write_zoo(plan: ZooPlan, data: TaskData, work: WorkFolder, report: Callable[[ZooSummary], object]) -> None:
    """Write the zoo from a work folder in which all populations are finished, and delete that folder.

    Args:
        plan: of the zoo.
        data: of the task.
        work: the work folder.
        report: called when all is written, before the zoo appears at its path.

    Raises:
        ZooError: a part is damaged.
    """
    rows: list[tuple[int, int, CheckpointEntry]] = []
    diverged: list[DivergedRun] = []
    overflows = 0
    with open_zoo(plan.out, work.scratch) as add_file:
        for number, runs in enumerate(plan.populations()):
            trained, training = work.load(number), plan.training(runs[0], data)
            epochs = trained.diverged.tolist()
            diverged += [DivergedRun(run, epoch) for run, epoch in zip(runs, epochs, strict=True) if epoch]
            for order, (label, snapshot) in enumerate(trained.snapshots.items()):
                is_due = torch.tensor([label in training.names(run.epochs) for run in runs])
                overflows += int((is_due & (snapshot.correct == NOT_TAKEN) & (trained.diverged == 0)).sum())
                for index, (run, correct) in enumerate(zip(runs, snapshot.correct.tolist(), strict=True)):
                    if correct == NOT_TAKEN:
                        continue
                    accuracy = correct / len(data.test.labels)
                    name = checkpoint_name(plan.dataset, f"{plan.seed:02d}z{run.number:05d}", label, accuracy)
                    rows.append((run.number, order, CheckpointEntry(run, name, label, accuracy)))
                    add_file(name, checkpoint_bytes({key: state[index] for key, state in snapshot.state.items()}))
        ordered = [row for *_, row in sorted(rows, key=lambda entry: entry[:2])]
        for name, content in data.shared_files().items():
            add_file(f"{plan.dataset}/{name}", content)
        add_file(f"metadata/{plan.dataset}.csv", metadata_bytes(ordered, plan.seed, plan.dataset, data.label_column))
        report(ZooSummary(torch.tensor([row.accuracy for row in ordered], dtype=torch.float64), diverged, overflows))
        work.mark_written()
    work.remove()
