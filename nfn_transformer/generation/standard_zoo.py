"""Zoos of standard transformers: checkpoints in the layout of a library, and a table of their scores.

OUT/run00000/config.json, model.safetensors     one folder for each network; run00000/epoch003/ with several snapshots
OUT/table.csv                                   file, scores, hyperparameters; a copy beside OUT.zip, OUT_table.csv
"""

import json
import math
import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save

from nfn_transformer.atomic_files import csv_text, write_text
from nfn_transformer.errors import UserError
from nfn_transformer.generation.array_plan import PartsPlan, TrainedPart, WrittenZoo
from nfn_transformer.generation.batches import train_samples
from nfn_transformer.generation.estimate import synchronize
from nfn_transformer.generation.standard_networks import StandardSizes, standard_config, standard_spec
from nfn_transformer.generation.standard_population import StandardPopulation, StandardTraining, train_standard
from nfn_transformer.generation.standard_recipe import StandardRun, StandardSettings
from nfn_transformer.generation.standard_tasks import StandardTask
from nfn_transformer.generation.zoo_writer import AddFile, open_zoo
from nfn_transformer.resources import free_bytes
from nfn_transformer.weights.standard_state_dicts import count_parameters, standard_shapes
from nfn_transformer.weights.state_dicts import unflatten_rows

STANDARD_VERSION = 1
"""Raised whenever the same configuration gives other networks, so that parts of both never mix."""

ON_CPU = 8
"""Networks of a part on a CPU, whose activations fit a core's cache."""

_MOST_ON_GPU = 1024
"""Most networks of a part on a GPU."""

_TIMED_STEPS, _MEASURED = 3, 8


@dataclass(frozen=True)
class StandardZooPlan(PartsPlan):
    """A zoo of standard transformers; those of one size and of similar lengths train together."""

    out: Path
    family: str
    """A key of KINDS."""
    half: bool
    task: StandardTask
    """Data that networks learn."""
    patch: int
    """Side of an image's patch in pixels."""
    runs: Sequence[StandardRun]
    """Networks in the order of their numbers."""
    seed: int
    """See `StandardTraining`, also for the fields below."""
    batch_size: int
    snapshots: tuple[str, ...]
    snapshot_unit: str
    population: int = ON_CPU

    def check(self) -> None:
        """Raise UserError where a network cannot be made, has no batch of samples, or no snapshot."""
        for number, run in enumerate(self.runs):
            samples = train_samples(run.settings.train_fraction, len(self.task.train.labels))
            if samples < self.batch_size:
                raise UserError(f"--batch_size {self.batch_size}: run {number} has only {samples} train samples")
            if not self._due(number):
                names = ",".join(self.snapshots)
                raise UserError(f"--snapshots {names}: run {number} has only {run.settings.epochs} epochs")

    @cached_property
    def _trainings(self) -> dict[StandardSizes, StandardTraining]:
        shared = (self.batch_size, self.seed, self.snapshots, self.snapshot_unit, self.half)
        specs = {
            sizes: standard_spec(self.family, sizes, self.task, self.patch)
            for sizes in dict.fromkeys(run.sizes for run in self.runs)
        }
        return {sizes: StandardTraining(spec, *shared) for sizes, spec in specs.items()}

    def training(self, number: int) -> StandardTraining:
        """Return the training of a network."""
        return self._trainings[self.runs[number].sizes]

    def _due(self, number: int) -> tuple[int, ...]:
        return self.training(number).due(self.runs[number].settings.epochs)

    @property
    def networks(self) -> int:
        """See `PartsPlan`."""
        return len(self.runs)

    @property
    def description(self) -> str:
        """See `PartsPlan`."""
        task = self.task
        what = "sequences" if task.is_next_token else "samples"
        counts = {count_parameters(training.spec) for training in self._trainings.values()}
        numbers = f"{min(counts):,}" + (f" to {max(counts):,}" if len(counts) > 1 else "")
        return (
            f"{self.networks} networks of --family {self.family}, {numbers} numbers each, in {len(self.parts)} parts; "
            f"{len(task.train.labels)} train, {len(task.test.labels)} test and {len(task.fresh.labels)} fresh {what}"
        )

    @property
    def bytes(self) -> int:
        """See `PartsPlan`."""
        sizes = (len(self._due(n)) * count_parameters(self.training(n).spec) for n in range(self.networks))
        return sum(sizes) * (2 if self.half else 4)

    def configuration(self) -> dict[str, object]:
        """See `PartsPlan`."""
        names = ("family", "half", "patch", "seed", "batch_size", "snapshots", "snapshot_unit", "population")
        settings = {name: getattr(self, name) for name in names}
        runs = [asdict(run) for run in self.runs]
        return {"format": STANDARD_VERSION, **settings, "runs": runs, "data": self.task.digest()}

    @cached_property
    def parts(self) -> Sequence[Sequence[int]]:
        """See `PartsPlan`."""
        of_size = defaultdict(list)
        for number, run in enumerate(self.runs):
            of_size[run.sizes].append(number)
        parts: list[Sequence[int]] = []
        for numbers in of_size.values():
            numbers.sort(key=lambda number: (self._steps(number), number))
            # Equal parts rather than full ones and a small rest, which would train slowly.
            count = -(-len(numbers) // self.population)
            cuts = [numbers[part * len(numbers) // count : (part + 1) * len(numbers) // count] for part in range(count)]
            parts += [sorted(cut, key=lambda number: (self.runs[number].settings.optimizer, number)) for cut in cuts]
        return parts

    def _steps(self, number: int) -> int:
        samples = train_samples(self.runs[number].settings.train_fraction, len(self.task.train.labels))
        return self._due(number)[-1] * (samples // self.batch_size)

    def largest(self) -> int:
        """Return the number of a network that needs the most memory to train; of any where none is trained."""
        return max(range(self.networks), key=self._size_in_training)

    def _size_in_training(self, number: int) -> tuple[bool, int, int]:
        steps = self._steps(number)
        return steps > 0, count_parameters(self.training(number).spec), steps

    def begin(self, numbers: Sequence[int], device: torch.device) -> StandardPopulation:
        """Return the population of networks of one size."""
        settings = [self.runs[number].settings for number in numbers]
        return StandardPopulation(self.training(numbers[0]), numbers, settings, self.task.to(device))

    def train(self, numbers: Sequence[int], device: torch.device, after: Callable[[float], object]) -> TrainedPart:
        """See `PartsPlan`."""
        lengths = [self._due(number)[-1] for number in numbers]
        after(float(sum(not length for length in lengths)))
        population = self.begin(numbers, device)
        return train_standard(population, lambda ended: after(sum(1 / lengths[index] for index in ended)))

    def seconds(self, device: torch.device) -> float:
        """See `PartsPlan`; the largest networks are measured."""
        numbers = max(self.parts, key=lambda part: max(map(self._size_in_training, part)))
        population = self.begin(numbers, device)
        if not (trained := len(population.left)):
            return 0.0
        population.step()
        synchronize(device)
        start = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            if len(population.left):
                population.step()
        synchronize(device)
        each = (time.perf_counter() - start) / _TIMED_STEPS / trained
        return each * sum(map(self._steps, range(self.networks))) / self.networks

    def listing(self) -> str:
        """See `PartsPlan`."""
        rows = [[number, *self._hyperparameters(number)] for number in range(self.networks)]
        return csv_text(["run", *_HYPERPARAMETERS], rows)

    def _hyperparameters(self, number: int) -> list[object]:
        run = self.runs[number]
        values = {**asdict(run.settings), **asdict(run.sizes)}
        return [values[name] for name in _HYPERPARAMETERS]

    def write(self, parts: Iterator[TrainedPart], scratch: Path, before: Callable[[], object]) -> WrittenZoo:
        """See `PartsPlan`."""
        is_single = all(len(self._due(number)) == 1 for number in range(self.networks))
        rows: list[tuple[int, int, str, list[float]]] = []
        table = self.beside or self.out / "table.csv"
        with open_zoo(self.out, scratch, prefix="") as add_file:
            for part in parts:
                rows += self._add_networks(part, is_single, add_file)
            for name, content in self.task.files:
                add_file(name, content)
            rows.sort(key=lambda row: row[:2])
            text = self._table(rows)
            add_file("table.csv", text.encode())
            if self.beside is not None:
                write_text(self.beside, text)
            before()
        place = f"--zoo {shlex.quote(str(self.out))} --table {shlex.quote(str(table))}"
        task = "--task regress --label_column test_loss " if self.task.is_next_token else ""
        return WrittenZoo(self._summary(rows), f"{task}--enc_mode complete {place}", [row[3][0] for row in rows])

    @property
    def beside(self) -> Path | None:
        """See `PartsPlan`; the table of a zip."""
        return self.out.with_name(f"{self.out.stem}_table.csv") if self.out.suffix == ".zip" else None

    def _add_networks(
        self, part: TrainedPart, is_single: bool, add_file: AddFile
    ) -> list[tuple[int, int, str, list[float]]]:
        """Add the networks of a part; return number, epoch, file and scores of each."""
        if not part:
            return []
        spec = self.training(int(part["numbers"][0])).spec
        config = json.dumps(standard_config(self.family, spec, self.half), indent=2).encode()
        state = unflatten_rows(part["rows"], standard_shapes(spec))
        scores = torch.stack([part[name] for name in _SCORES.values()], 1).tolist()
        rows = []
        for index, (number, epoch) in enumerate(zip(part["numbers"].tolist(), part["epochs"].tolist(), strict=True)):
            folder = f"run{number:05d}" + ("" if is_single else f"/epoch{epoch:03d}")
            tensors = {key: stacked[index].contiguous() for key, stacked in state.items()}
            add_file(f"{folder}/config.json", config)
            add_file(f"{folder}/model.safetensors", save(tensors, {"format": "pt"}))
            rows.append((number, epoch, f"{folder}/model.safetensors", scores[index]))
        return rows

    def _table(self, rows: Sequence[tuple[int, int, str, list[float]]]) -> str:
        """Return the table: a row for each checkpoint, and no columns of scores on fresh samples without these."""
        header = ["file", "run", "epoch", *_SCORES, "family", "seed", *_HYPERPARAMETERS]
        lines = [
            [
                *(file, f"run{number:05d}", epoch),
                *("" if math.isnan(score) else round(score, 6) for score in scores),
                *(self.family, self.seed, *self._hyperparameters(number)),
            ]
            for number, epoch, file, scores in rows
        ]
        if not len(self.task.fresh.labels):
            kept = [place for place, name in enumerate(header) if not name.startswith("fresh_")]
            header, lines = [header[place] for place in kept], [[line[place] for place in kept] for line in lines]
        return csv_text(header, lines)

    def _summary(self, rows: Sequence[tuple[int, int, str, list[float]]]) -> str:
        if not rows:
            return "no network is left"
        column = 1 if self.task.is_next_token else 0
        scores = torch.tensor([row[3][column] for row in rows], dtype=torch.float64)
        low, median, high = (scores.quantile(q).item() for q in (0, 0.5, 1))
        absent = sum(len(self._due(number)) for number in range(self.networks)) - len(rows)
        left_out = f"; {absent} more have diverged and are left out" if absent else ""
        name = "test loss" if self.task.is_next_token else "accuracy"
        tau = ""
        if len(self.task.fresh.labels) and len(rows) > 1:
            from scipy.stats import kendalltau  # slow to import

            fresh = [row[3][column + 2] for row in rows]
            tau = f"; tau with the same on fresh samples {kendalltau(scores, fresh).statistic:.4f}"
        return f"{len(rows)} checkpoints, {name} {low:.4f} to {high:.4f}, median {median:.4f}{left_out}{tau}"


_SCORES = {
    "test_accuracy": "test_accuracies",
    "test_loss": "test_losses",
    "fresh_accuracy": "fresh_accuracies",
    "fresh_loss": "fresh_losses",
}
"""Column of the table -> tensor of a trained part."""

_HYPERPARAMETERS = (
    *(field.name for field in fields(StandardSettings)),
    *(field.name for field in fields(StandardSizes)),
)
"""Columns of hyperparameters."""


def most_on_gpu(plan: StandardZooPlan, device: torch.device, processes: int) -> int:
    """Return how many networks fit into half of a GPU's free memory, shared by `processes`.

    Some of the largest networks are trained for a step, and scored: either takes more, by the lengths of the inputs.
    """
    task, number = plan.task.to(device), plan.largest()  # all networks share the task
    settings, each = plan.runs[number].settings, 1.0
    free = free_bytes(device) / 2 / processes
    for one in (settings, replace(settings, epochs=0)):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        population = StandardPopulation(plan.training(number), [number] * _MEASURED, [one] * _MEASURED, task)
        if len(population.left):
            population.step()
        each = max(each, (torch.cuda.max_memory_allocated(device) - before) / _MEASURED)
        del population
    torch.cuda.empty_cache()
    return max(1, min(int(free / each), _MOST_ON_GPU))
