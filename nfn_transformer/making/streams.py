"""The random numbers of n runs trained together, each run's from streams of its own.

A stream is named by the zoo's seed, the run and the purpose, so a run sees the same images, masks
and initial weights whatever other runs it is trained with.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor
from torch.nn.init import trunc_normal_

from nfn_transformer.making.samples import LabelledSamples
from nfn_transformer.networks.forward import positional_encoding
from nfn_transformer.seeding import stream
from nfn_transformer.weights.checkpoint_format import state_dict_shapes
from nfn_transformer.weights.spec import TransformerSpec

POSITION_KEY = "embedding.pos_embedding"


def run_streams(seed: int, runs: Sequence[int], purpose: str) -> list[Generator]:
    """A generator for each of these runs."""
    return [stream(seed, "run", run, purpose) for run in runs]


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


class PopulationDropout:
    """Dropout with each network's own probability: activations [n, ...] to the same shape."""

    def __init__(self, probabilities: Tensor, generators: Sequence[Generator]):
        """Args: probabilities [n] in [0, 1), on the CPU; one generator for each network."""
        self._probabilities = probabilities
        self._generators = generators

    def __call__(self, activations: Tensor) -> Tensor:
        """Drop and rescale; networks with probability 0 draw nothing."""
        active = [network for network, p in enumerate(self._probabilities.tolist()) if p > 0]
        if not active:
            return activations
        size = activations[0].numel()
        words = torch.zeros(len(activations), -(-size // 4), dtype=torch.int64)
        for network in active:
            words[network].random_(-(2**63), None, generator=self._generators[network])
        # Sixteen random bits for each number: four numbers from one draw, as drawing is what costs.
        bits = words.view(torch.int16)[:, :size]
        threshold = (self._probabilities * 2**16).round()
        kept = (bits >= (threshold - 2**15).to(torch.int16)[:, None]).to(activations.device)
        scale = (1 / (1 - threshold / 2**16)).to(activations)
        factors = kept * scale[:, None]
        return activations * factors.view_as(activations)


class PopulationBatches:
    """Batches of n runs that each train on their own part of the samples, in their own order."""

    def __init__(
        self,
        data: LabelledSamples,
        fraction: float,
        batch_size: int,
        crop_padding: int,
        seed: int,
        runs: Sequence[int],
    ):
        """Args: train samples; the part of them that every run draws for itself; see `epoch` for the rest."""
        count = max(1, int(fraction * len(data.labels) + 1e-9))
        self._data = data
        self._batch_size = min(batch_size, count)
        self._crop_padding = crop_padding
        self._orders = run_streams(seed, runs, "order")
        subsets = [torch.randperm(len(data.labels), generator=g)[:count] for g in run_streams(seed, runs, "subset")]
        self._subsets = torch.stack(subsets)  # [n, count]
        if crop_padding:
            padded = torch.nn.functional.pad(data.inputs, (crop_padding,) * 4, value=-1.0)
            # All crops of all images as a view: [images, channels, offsets, offsets, height, width].
            self._crops = padded.unfold(2, data.inputs.shape[2], 1).unfold(3, data.inputs.shape[3], 1)

    @property
    def steps(self) -> int:
        """Batches in an epoch; samples that fill no whole batch wait for the next epoch's order."""
        return self._subsets.shape[1] // self._batch_size

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in new orders: inputs [n, batch, ...] and labels [n, batch]."""
        count = self._subsets.shape[1]
        orders = torch.stack([torch.randperm(count, generator=g) for g in self._orders])
        device = self._data.labels.device
        indices = self._subsets.gather(1, orders).to(device)
        if self._crop_padding:
            choices = 2 * self._crop_padding + 1
            drawn = [torch.randint(choices, (2, count), generator=g) for g in self._orders]
            rows, columns = torch.stack(drawn, dim=1).to(device)
        for start in range(0, self.steps * self._batch_size, self._batch_size):
            part = slice(start, start + self._batch_size)
            chosen = indices[:, part]
            inputs = (
                self._crops[chosen, :, rows[:, part], columns[:, part]]
                if self._crop_padding
                else self._data.inputs[chosen]
            )
            yield inputs, self._data.labels[chosen]
