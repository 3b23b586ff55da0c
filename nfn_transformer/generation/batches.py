"""Batches of n runs trained together, each from random numbers of its own.

A generator is named by the zoo's seed, the run and the purpose. So a run sees the same samples and initial weights
with any other runs trained beside.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.seeding import make_generator


def run_generators(seed: int, runs: Sequence[int], purpose: str) -> list[Generator]:
    """Return a generator for each run."""
    return [make_generator(seed, "run", run, purpose) for run in runs]


class PopulationBatches:
    """Batches of n runs; each run trains on its own subset of the samples, in its own order in each epoch."""

    def __init__(
        self,
        data: LabelledSamples,
        fractions: Sequence[float],
        batch_size: int,
        crop_padding: int,
        seed: int,
        runs: Sequence[int],
    ):
        """Draw each run's subset.

        Args:
            data: train samples.
            fractions: share of the samples that each run trains on; at least a batch.
            batch_size: samples in a batch.
            crop_padding: pixels by which images are padded before they are cropped at random.
            seed: of the zoo.
            runs: numbers of the runs.
        """
        total, device = len(data.labels), data.labels.device
        counts = [train_samples(fraction, total) for fraction in fractions]
        self._data = data
        self._batch_size, self._crop_padding = batch_size, crop_padding
        self._subsets = [
            torch.randperm(total, generator=generator)[:count].to(torch.int32)
            for generator, count in zip(run_generators(seed, runs, "subset"), counts, strict=True)
        ]
        self._generators = run_generators(seed, runs, "order")
        self.steps = torch.tensor([count // batch_size for count in counts])
        """[n], on the CPU, batches in an epoch; samples that fill no whole batch wait for the next epoch's order."""
        self._steps_on_device = self.steps.to(device)
        self._within = torch.arange(batch_size, device=device)
        size = (len(runs), max(counts))
        self._orders = torch.zeros(size, dtype=torch.int32, device=device)
        if crop_padding:
            self._offsets = torch.zeros(2, *size, dtype=torch.uint8, device=device)
            padded = torch.nn.functional.pad(data.inputs, (crop_padding,) * 4, value=-1.0)
            # All crops of all images as a view: [images, channels, offsets, offsets, height, width].
            self._crops = padded.unfold(2, data.inputs.shape[2], 1).unfold(3, data.inputs.shape[3], 1)

    def select(self, rows: Tensor) -> None:
        """Go on with the runs of these rows alone."""
        indices = rows.tolist()
        self._subsets = [self._subsets[index] for index in indices]
        self._generators = [self._generators[index] for index in indices]
        self.steps = self.steps[rows]
        on_device = rows.to(self._orders.device)
        self._steps_on_device = self._steps_on_device[on_device]
        self._orders = self._orders[on_device]
        if self._crop_padding:
            self._offsets = self._offsets[:, on_device]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batches of a step: inputs [n, b, ...] and labels [n, b]. Steps follow one another from 0."""
        self._begin_epochs(torch.nonzero(step % self.steps == 0).flatten().tolist())
        positions = (step % self._steps_on_device * self._batch_size)[:, None] + self._within
        samples = self._orders.gather(1, positions).long()
        if not self._crop_padding:
            return self._data.inputs[samples], self._data.labels[samples]
        top, left = (offsets.gather(1, positions).long() for offsets in self._offsets)
        return self._crops[samples, :, top, left], self._data.labels[samples]

    def _begin_epochs(self, rows: Sequence[int]) -> None:
        """Draw new orders, and new crops, for the runs of these rows."""
        for row in rows:
            subset, generator = self._subsets[row], self._generators[row]
            count = len(subset)
            self._orders[row, :count] = subset[torch.randperm(count, generator=generator)].to(self._orders.device)
            if self._crop_padding:
                offsets = torch.randint(2 * self._crop_padding + 1, (2, count), generator=generator)
                self._offsets[:, row, :count] = offsets.to(torch.uint8).to(self._offsets.device)


def train_samples(fraction: float, total: int) -> int:
    """Return the number of samples that a run with this fraction of `total` trains on."""
    return max(1, int(fraction * total + 1e-9))
