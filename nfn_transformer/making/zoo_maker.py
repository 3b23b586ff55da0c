"""Making a zoo: drawing the runs, training them in populations, and writing the release."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.errors import UserError
from nfn_transformer.making.hyperparameters import Hyperparameters, draw_hyperparameters
from nfn_transformer.making.images import ImageData
from nfn_transformer.making.parts import WorkFolder
from nfn_transformer.making.population import Snapshot, TrainingPlan, train_population
from nfn_transformer.making.release import (
    MetadataRow,
    checkpoint_bytes,
    checkpoint_name,
    metadata_bytes,
    metadata_row,
    writing_zoo,
)

FORMAT_VERSION = 1
"""Raised whenever the same configuration would give other networks, so that parts of both never mix."""


@dataclass(frozen=True)
class ZooPlan:
    """A whole zoo: where it goes, its name, its runs, how many train at once, and how they train."""

    out: Path
    dataset: str
    runs: int
    population: int
    training: TrainingPlan

    def run_id(self, run: int) -> str:
        """The run's part of its checkpoints' names."""
        return f"{self.training.seed:02d}z{run:05d}"


@dataclass(frozen=True)
class MadeZoo:
    """What was made: accuracies [checkpoints] of what is in the zoo, diverged checkpoints left out, and seconds."""

    accuracies: Tensor
    diverged: int
    seconds: float


def populations(settings: Sequence[Hyperparameters], size: int) -> list[list[int]]:
    """Runs that train together: at most `size`, of one optimizer and train fraction (so with equally many steps)."""

    def kind(run: int) -> tuple[str, float]:
        return settings[run].optimizer, settings[run].train_fraction

    found = []
    for _, group in groupby(sorted(range(len(settings)), key=kind), key=kind):
        runs = list(group)
        # Equal parts rather than full ones and a small rest, which would train slowly.
        count = -(-len(runs) // size)
        found += [runs[part * len(runs) // count : (part + 1) * len(runs) // count] for part in range(count)]
    return found


def make_zoo(plan: ZooPlan, data: ImageData, device: torch.device) -> MadeZoo:
    """Train all runs, or those that an interrupted call has left, and write the zoo.

    Raises:
        UserError: something is at `plan.out` already, or an unfinished zoo of another configuration.
    """
    if plan.out.exists():
        raise UserError(f"--out {plan.out}: is already there; name another place or delete it")
    begin = time.monotonic()
    settings = [draw_hyperparameters(plan.training.seed, run) for run in range(plan.runs)]
    groups = populations(settings, plan.population)
    work = WorkFolder(plan.out, _configuration(plan, data))
    on_device = data.to(device)
    with _progress(plan) as bar:
        for number, runs in enumerate(groups):
            if work.has(number):
                _skip(bar, len(runs) * plan.training.last_epoch)
                continue
            chosen = [settings[run] for run in runs]
            advance = partial(bar.update, len(runs))
            work.save(number, train_population(plan.training, runs, chosen, on_device, advance))
    accuracies, diverged = _write(plan, settings, groups, work, len(data.test.labels))
    work.remove()
    return MadeZoo(accuracies, diverged, time.monotonic() - begin)


def _configuration(plan: ZooPlan, data: ImageData) -> dict[str, object]:
    """All that the networks depend on. The device is not part: a zoo may be finished elsewhere."""
    shape = {"dataset": plan.dataset, "runs": plan.runs, "population": plan.population}
    return {"format": FORMAT_VERSION, **shape, **asdict(plan.training), "images": data.digest()}


def _progress(plan: ZooPlan) -> tqdm:
    total = plan.runs * plan.training.last_epoch
    return tqdm(total=total, unit="network-epoch", desc=f"{plan.runs} networks", smoothing=0.05, dynamic_ncols=True)


def _skip(bar: tqdm, done: int) -> None:
    """Count finished work without taking it for speed."""
    bar.initial += done
    bar.n += done
    bar.refresh()


def _write(
    plan: ZooPlan,
    settings: Sequence[Hyperparameters],
    groups: Sequence[Sequence[int]],
    work: WorkFolder,
    test_images: int,
) -> tuple[Tensor, int]:
    """Write the zoo from the work folder: accuracies of its checkpoints, and how many diverged ones were left out."""
    rows: list[tuple[int, MetadataRow]] = []
    diverged = 0
    with writing_zoo(plan.out, work.scratch) as add:
        for number, runs in enumerate(groups):
            for label, snapshot in work.load(number).items():
                finite = _finite(snapshot)
                for place, run in enumerate(runs):
                    if not finite[place]:
                        diverged += 1
                        continue
                    accuracy = int(snapshot.correct[place]) / test_images
                    row = _row(plan, settings[run], run, label, accuracy)
                    rows.append((run, row))
                    add(row.ckpt_file, checkpoint_bytes({key: state[place] for key, state in snapshot.state.items()}))
        ordered = [row for _, row in sorted(rows, key=lambda pair: (pair[0], pair[1].ckpt_epoch))]
        add(f"metadata/{plan.dataset}.csv", metadata_bytes(ordered))
    return torch.tensor([row.test_top1_accuracy for row in ordered], dtype=torch.float64), diverged


def _finite(snapshot: Snapshot) -> list[bool]:
    found = [tensor.isfinite().flatten(1).all(1) for tensor in snapshot.state.values()]
    return torch.stack(found).all(0).tolist()


def _row(plan: ZooPlan, settings: Hyperparameters, run: int, label: str, accuracy: float) -> MetadataRow:
    spec = plan.training.spec
    return metadata_row(
        settings,
        seed=plan.training.seed,
        dataset=plan.dataset,
        embed_dim=spec.classifier.sizes[0],
        n_attention_heads=spec.blocks[0].heads,
        n_layers=len(spec.blocks),
        ckpt_epoch=int(label),
        ckpt_file=checkpoint_name(plan.dataset, plan.run_id(run), label, accuracy),
        test_top1_accuracy=round(accuracy, 6),
    )
