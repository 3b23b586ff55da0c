"""Zoos of SIRENs: an implicit representation of every image of a data set, and further ones with other seeds."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.generation.array_plan import ArrayZooPlan, TrainedPart
from nfn_transformer.generation.array_zoo import ArrayZoo
from nfn_transformer.generation.images import ImageData
from nfn_transformer.generation.siren_fits import OFFSET, OMEGA, SirenPlan, draw, fit_sirens
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.feed_forward_pass import pixel_grid

FITS_VERSION = 1
"""Raised whenever the same configuration gives other networks, so that parts of both never mix."""

_TIMED_STEPS, _TIMED_NETWORKS = 20, 16


@dataclass(frozen=True)
class Pictures:
    """Labelled images of a data set, in its own order."""

    pixels: Tensor
    """Images [n, colours, height, width], float32 in [0, 1]."""
    labels: Tensor
    """Classes [n], int64."""
    train: int
    """Count of train images, which come first; the others are test images. 0: the data set has no such parts."""

    def first(self, count: int | None) -> "Pictures":
        """Return the first images; None: all."""
        return Pictures(self.pixels[:count], self.labels[:count], self.train)


def digit_pictures() -> Pictures:
    """Return scikit-learn's 1,797 digits in scikit-learn's order; pixels are sixteenths."""
    from sklearn.datasets import load_digits  # as long to import as PyTorch, and other images need it not

    bunch = load_digits()
    pixels = torch.as_tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return Pictures(pixels, torch.as_tensor(bunch.target, dtype=torch.int64), 0)


def train_then_test(data: ImageData) -> Pictures:
    """Return the train images of a data set, then its test images."""
    pixels = torch.cat([data.train.inputs, data.test.inputs])
    return Pictures((pixels + 1) / 2, torch.cat([data.train.labels, data.test.labels]), len(data.train.labels))


@dataclass(frozen=True)
class SirenZooPlan(ArrayZooPlan):
    """A zoo of SIRENs; network number i is a fit of image i // (copies + 1)."""

    out: Path
    dataset: str
    half: bool
    pictures: Pictures
    """Images to fit."""
    siren: SirenPlan
    """Sizes and training."""
    copies: int
    """Further fits of each image."""
    seed: int
    """Seed of all initial weights."""
    population: int = 128
    reading: str = "--task classify --enc_mode np"

    @property
    def networks(self) -> int:
        """See `ArrayZooPlan`."""
        return len(self.pictures.labels) * (self.copies + 1)

    @property
    def parts(self) -> Sequence[Sequence[int]]:
        """See `ArrayZooPlan`."""
        starts = range(0, self.networks, self.population)
        return [range(start, min(start + self.population, self.networks)) for start in starts]

    @property
    def description(self) -> str:
        """See `ArrayZooPlan`."""
        height, width = self.pictures.pixels.shape[2:]
        images = f"{len(self.pictures.labels)} images of {height} x {width} pixels"
        images += f", {self.copies + 1} fits of each" if self.copies else ""
        sizes = " -> ".join(map(str, self.siren.sizes))
        return f"{self.networks} SIRENs {sizes} ({images}), at most {self.siren.steps} steps"

    @property
    def bytes(self) -> int:
        """See `ArrayZooPlan`."""
        return self.networks * self.siren.numbers * (2 if self.half else 4)

    def configuration(self) -> dict[str, object]:
        """See `ArrayZooPlan`."""
        digest = hashlib.sha256()
        for tensor in (self.pictures.pixels, self.pictures.labels):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
        settings = {name: getattr(self, name) for name in ("dataset", "half", "copies", "seed", "population")}
        siren = asdict(self.siren)
        return {"family": "siren", "format": FITS_VERSION, **settings, **siren, "data": digest.hexdigest()}

    def train(self, numbers: Sequence[int], device: torch.device, after: Callable[[float], object]) -> TrainedPart:
        """See `ArrayZooPlan`."""
        return self._fit(self.siren, numbers, device, after)

    def _fit(
        self, siren: SirenPlan, numbers: Sequence[int], device: torch.device, after: Callable[[float], object]
    ) -> TrainedPart:
        images = [divmod(number, self.copies + 1) for number in numbers]
        generators = [make_generator(self.seed, "image", image, "copy", copy) for image, copy in images]
        pixels = self.pictures.pixels[[image for image, _ in images]]  # [n, colours, height, width]
        grid = pixel_grid(*pixels.shape[2:]).to(device)
        targets = pixels.flatten(2).to(device)
        fits = fit_sirens(siren, targets, grid, generators, after)
        rows, decibels = fits.rows, fits.decibels
        if self.half:
            rows = rows.half().float()
            decibels = -10 * (draw(rows, siren, grid) - targets).square().mean((1, 2)).log10()
        return {"rows": rows.cpu(), "decibels": decibels.cpu(), "steps": fits.steps.cpu()}

    def seconds(self, device: torch.device) -> float:
        """See `ArrayZooPlan`."""
        numbers = range(min(self.networks, _TIMED_NETWORKS))
        start = time.perf_counter()
        self._fit(SirenPlan(self.siren.sizes, _TIMED_STEPS), numbers, device, lambda count: None)
        return (time.perf_counter() - start) / len(numbers) / _TIMED_STEPS * self.siren.steps

    def listing(self) -> str:
        """See `ArrayZooPlan`."""
        columns = self._columns()
        return csv_text(list(columns), zip(*columns.values(), strict=True))

    def _columns(self) -> dict[str, Sequence[object]]:
        images = [number // (self.copies + 1) for number in range(self.networks)]
        columns: dict[str, Sequence[object]] = {
            "run": images,
            "copy": [number % (self.copies + 1) for number in range(self.networks)],
            "label": self.pictures.labels[images].tolist(),
        }
        if train := self.pictures.train:
            columns["part"] = ["train" if image < train else "test" for image in images]
        return columns

    def contents(self, part: TrainedPart) -> ArrayZoo:
        """See `ArrayZooPlan`."""
        shared = {
            "activation": "sine",
            "omega": OMEGA,
            "offset": OFFSET,
            "num_layers": len(self.siren.sizes) - 2,
            "num_units": self.siren.sizes[1],
            "learning_rate": self.siren.lr,
            "optimizer": "adam",
            "random_seed": self.seed,
        }
        columns: dict[str, Sequence[object]] = {"step": part["steps"].tolist(), **self._columns()}
        columns["psnr"] = [f"{value:.2f}" for value in part["decibels"].tolist()]
        columns |= {f"config.{name}": [value] * self.networks for name, value in shared.items()}
        tensors = self.siren.tensors(part["rows"])
        return ArrayZoo([tensor.squeeze(2) if i % 2 else tensor for i, tensor in enumerate(tensors)], columns)

    def summary(self, zoo: ArrayZoo) -> str:
        """See `ArrayZooPlan`."""
        decibels = torch.tensor([float(str(value)) for value in zoo.columns["psnr"]])
        low, mean = decibels.min().item(), decibels.mean().item()
        return f"{self.networks} SIRENs, {mean:.1f} dB on average, at least {low:.1f} dB"
