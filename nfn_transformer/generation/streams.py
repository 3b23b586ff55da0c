"""The random numbers of n runs trained together, each run's from streams of its own.

A stream is named by the zoo's seed, the run and the purpose, so a run sees the same samples
and initial weights whatever other runs it is trained with.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.init import trunc_normal_

from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.forward import positional_encoding
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.weights.state_dicts import state_dict_shapes

POSITION_KEY = "embedding.pos_embedding"


def run_streams(seed: int, runs: Sequence[int], purpose: str) -> list[Generator]:
    """A generator for each of these runs."""
    return [make_generator(seed, "run", run, purpose) for run in runs]


def initial_state(spec: TransformerSpec, std: float, generator: Generator) -> dict[str, Tensor]:
    """A new network's state dict: weights normal and cut off at two `std`, biases zero, positions encoded."""
    state = {}
    for key, shape in state_dict_shapes(spec).items():
        if key == POSITION_KEY:
            state[key] = positional_encoding(*shape)
        elif key.endswith(".bias"):
            state[key] = torch.zeros(shape)
        else:
            state[key] = trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std, generator=generator)
    return state


class PopulationBatches:
    """Batches of n runs that each train on their own part of the samples, in their own order, epoch after epoch."""

    def __init__(
        self,
        data: LabelledSamples,
        fractions: Sequence[float],
        batch_size: int,
        crop_padding: int,
        seed: int,
        runs: Sequence[int],
    ):
        """Args: train samples; each run's fraction of them, at least a batch, which it draws for itself."""
        total, device = len(data.labels), data.labels.device
        counts = [train_samples(fraction, total) for fraction in fractions]
        self._data = data
        self._batch_size, self._crop_padding = batch_size, crop_padding
        self._subsets = [
            torch.randperm(total, generator=generator)[:count].to(torch.int32)
            for generator, count in zip(run_streams(seed, runs, "subset"), counts, strict=True)
        ]
        self._generators = run_streams(seed, runs, "order")
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

    def keep(self, places: Tensor) -> None:
        """Go on with the runs at these places alone."""
        chosen = places.tolist()
        self._subsets = [self._subsets[place] for place in chosen]
        self._generators = [self._generators[place] for place in chosen]
        self.steps = self.steps[places]
        on_device = places.to(self._orders.device)
        self._steps_on_device = self._steps_on_device[on_device]
        self._orders = self._orders[on_device]
        if self._crop_padding:
            self._offsets = self._offsets[:, on_device]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batches of a step, counted from 0; steps come one after another: inputs [n, b, ...], labels [n, b]."""
        self._begin_epochs(torch.nonzero(step % self.steps == 0).flatten().tolist())
        places = (step % self._steps_on_device * self._batch_size)[:, None] + self._within
        chosen = self._orders.gather(1, places).long()
        if not self._crop_padding:
            return self._data.inputs[chosen], self._data.labels[chosen]
        rows, columns = (offsets.gather(1, places).long() for offsets in self._offsets)
        return self._crops[chosen, :, rows, columns], self._data.labels[chosen]

    def _begin_epochs(self, places: Sequence[int]) -> None:
        """New orders, and new crops, for the runs at these places."""
        for place in places:
            subset, generator = self._subsets[place], self._generators[place]
            count = len(subset)
            self._orders[place, :count] = subset[torch.randperm(count, generator=generator)].to(self._orders.device)
            if self._crop_padding:
                drawn = torch.randint(2 * self._crop_padding + 1, (2, count), generator=generator)
                self._offsets[:, place, :count] = drawn.to(torch.uint8).to(self._offsets.device)


def train_samples(fraction: float, total: int) -> int:
    """How many samples a run trains on that has this fraction of `total`."""
    return max(1, int(fraction * total + 1e-9))
