"""Zoos of CNNs after the recipe of the Small CNN Zoo (Unterthiner et al. 2020): hyperparameters are drawn for each."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.errors import UserError
from nfn_transformer.generation.array_plan import ArrayZooPlan, TrainedPart
from nfn_transformer.generation.array_zoo import ArrayZoo
from nfn_transformer.generation.batches import train_samples
from nfn_transformer.generation.cnn_population import KERNEL, STRIDE, CnnPlan, CnnPopulation, train_cnns
from nfn_transformer.generation.cnn_recipe import CnnSettings, draw_settings
from nfn_transformer.generation.images import ImageData
from nfn_transformer.generation.ranges import Drawn
from nfn_transformer.generation.snapshots import NOT_TAKEN
from nfn_transformer.weights.state_dicts import row_length, unflatten_rows

TRAININGS_VERSION = 1
"""Raised whenever the same configuration gives other networks, so that parts of both never mix."""

DEPTH = 3
"""Convolutions of the Small CNN Zoo's networks."""

_TIMED_STEPS = 5


def deepest(images: ImageData) -> int:
    """Return the most convolutions that the images have room for."""
    side, depth = min(images.train.inputs.shape[2:]), 0
    while side >= KERNEL:
        side, depth = (side - KERNEL) // STRIDE + 1, depth + 1
    return depth


@dataclass(frozen=True)
class CnnZooPlan(ArrayZooPlan):
    """A zoo of CNNs; those of one activation, and of similar lengths, train together."""

    out: Path
    dataset: str
    half: bool
    data: ImageData
    """Images and their classes."""
    cnn: CnnPlan
    """Sizes and training."""
    recipe: Mapping[str, Drawn]
    """Ranges of the hyperparameters."""
    runs: int
    """Count of networks."""
    population: int = 8
    reading: str = "--enc_mode np"

    def __post_init__(self):
        layers, most = len(self.cnn.maps) - 1, deepest(self.data)
        if layers > most:
            raise UserError(f"--n_layers {layers}: too many convolutions for {self._pixels}, expected at most {most}")
        fewest = min(train_samples(one.train_fraction, len(self.data.train.labels)) for one in self.settings())
        if fewest < self.cnn.batch_size:
            raise UserError(f"--batch_size {self.cnn.batch_size}: a network has only {fewest} train images")

    @property
    def networks(self) -> int:
        """See `ArrayZooPlan`."""
        return self.runs

    @property
    def description(self) -> str:
        """See `ArrayZooPlan`."""
        sizes = " -> ".join(map(str, (*self.cnn.maps, self.cnn.classes)))
        images = f"{len(self.data.train.labels)} train and {len(self.data.test.labels)} test images"
        layers, room = len(self.cnn.maps) - 1, ""
        if layers == deepest(self.data) < DEPTH:
            room = f" ({layers} convolutions, as {self._pixels} have no room for more)"
        return f"{self.networks} CNNs {sizes}{room}, {images}, {self.cnn.snapshots[-1]} epochs"

    @property
    def _pixels(self) -> str:
        return " x ".join(map(str, self.data.train.inputs.shape[2:])) + " pixels"

    @property
    def bytes(self) -> int:
        """See `ArrayZooPlan`."""
        return self.networks * len(self.cnn.snapshots) * row_length(self.cnn.shapes) * (2 if self.half else 4)

    def settings(self) -> list[CnnSettings]:
        """Return the hyperparameters of all networks."""
        return [draw_settings(self.recipe, self.cnn.seed, number) for number in range(self.networks)]

    def configuration(self) -> dict[str, object]:
        """See `ArrayZooPlan`."""
        settings = {"dataset": self.dataset, "population": self.population, **asdict(self.cnn)}
        runs = [asdict(one) for one in self.settings()]
        return {
            "family": "cnn",
            "format": TRAININGS_VERSION,
            **settings,
            "settings": runs,
            "data": self.data.digest(),
        }

    @property
    def parts(self) -> Sequence[Sequence[int]]:
        """See `ArrayZooPlan`."""
        settings = self.settings()
        parts: list[Sequence[int]] = []
        for activation in sorted({one.activation for one in settings}):
            numbers = [number for number in range(self.networks) if settings[number].activation == activation]
            numbers.sort(key=lambda number: (settings[number].train_fraction, settings[number].optimizer, number))
            # Equal parts rather than full ones and a small rest, which would train slowly.
            count = -(-len(numbers) // self.population)
            cuts = [part * len(numbers) // count for part in range(count + 1)]
            chosen = (numbers[start:stop] for start, stop in itertools.pairwise(cuts))
            parts += [sorted(part, key=lambda number: (settings[number].optimizer, number)) for part in chosen]
        return parts

    def _begin(self, numbers: Sequence[int], device: torch.device) -> CnnPopulation:
        settings = [draw_settings(self.recipe, self.cnn.seed, number) for number in numbers]
        return CnnPopulation(self.cnn, numbers, settings, self.data.train.to(device), self.data.test.to(device))

    def train(self, numbers: Sequence[int], device: torch.device, after: Callable[[float], object]) -> TrainedPart:
        """See `ArrayZooPlan`."""
        trained = train_cnns(self._begin(numbers, device), lambda epochs: after(epochs / self.cnn.snapshots[-1]))
        return {"numbers": torch.tensor(numbers), **vars(trained)}

    def seconds(self, device: torch.device) -> float:
        """See `ArrayZooPlan`."""
        numbers = self.parts[0]
        population = self._begin(numbers, device)
        population.step()
        start = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            if len(population.left):
                population.step()
        each = (time.perf_counter() - start) / _TIMED_STEPS / len(numbers)
        images = [train_samples(one.train_fraction, len(self.data.train.labels)) for one in self.settings()]
        return each * self.cnn.snapshots[-1] * sum(images) / self.cnn.batch_size / self.networks

    def listing(self) -> str:
        """See `ArrayZooPlan`."""
        rows = [[number, *asdict(one).values()] for number, one in enumerate(self.settings())]
        return csv_text(["run", *CnnSettings.__dataclass_fields__], rows)

    def contents(self, part: TrainedPart) -> ArrayZoo:
        """See `ArrayZooPlan`."""
        order = part["numbers"].argsort()
        rows, correct = part["rows"][order].flatten(0, 1), part["correct"][order].flatten()  # a row each snapshot
        kept = (correct != NOT_TAKEN).nonzero().flatten()
        images, epochs = len(self.data.test.labels), self.cnn.snapshots
        settings, runs = self.settings(), (kept // len(epochs)).tolist()
        columns: dict[str, Sequence[object]] = {
            "step": [epochs[index] for index in (kept % len(epochs)).tolist()],
            "run": runs,
            "test_accuracy": [round(count / images, 6) for count in correct[kept].tolist()],
            "test_images": [images] * len(kept),
        }
        columns |= {
            f"config.{name}": [asdict(settings[run])[name] for run in runs] for name in CnnSettings.__dataclass_fields__
        }
        shared = {
            "b_init": "zeros",
            "dnn_architecture": "cnn",
            "epochs": epochs[-1],
            "num_layers": len(self.cnn.maps) - 1,
            "num_units": self.cnn.maps[1],
            "random_seed": self.cnn.seed,
        }
        columns |= {f"config.{name}": [value] * len(kept) for name, value in shared.items()}
        return ArrayZoo(list(unflatten_rows(rows[kept], self.cnn.shapes).values()), columns)

    def summary(self, zoo: ArrayZoo) -> str:
        """See `ArrayZooPlan`."""
        accuracies = torch.tensor([float(str(value)) for value in zoo.columns["test_accuracy"]], dtype=torch.float64)
        if not len(accuracies):
            return "no network is left"
        low, median, high = (accuracies.quantile(q).item() for q in (0, 0.5, 1))
        absent = self.networks * len(self.cnn.snapshots) - len(accuracies)
        left_out = f"; {absent} more have diverged and are left out" if absent else ""
        return f"{len(accuracies)} checkpoints, accuracy {low:.4f} to {high:.4f}, median {median:.4f}{left_out}"
