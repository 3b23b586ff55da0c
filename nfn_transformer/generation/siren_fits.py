"""Fits of n SIRENs at once, each to a picture of its own: batched matrix products and a backward pass by hand.

A SIREN (Sitzmann et al. 2020) maps a pixel's place to its colour: sin(omega (W x + b)) in every hidden layer, then
W x + b + offset. Places and targets are those of the DWSNets zoo (Navon et al. 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from nfn_transformer.generation.optimizers import PopulationOptimizer

OMEGA, OFFSET = 30.0, 0.5
"""Factor in front of each sine's argument, and number added to the outputs."""

_CHUNK_BYTES = 1 << 20
"""Bytes of one layer's activations of the networks that step together on a CPU: they stay in a core's cache."""


@dataclass(frozen=True)
class SirenPlan:
    """Sizes and training of SIRENs."""

    sizes: tuple[int, ...]
    """Neurons of each layer, from 2 coordinates to the colours of a pixel."""
    steps: int = 1000
    """Most steps of a fit."""
    decibels: float = 40.0
    """Peak signal-to-noise ratio at which a fit ends before that."""
    lr: float = 5e-4
    """Learning rate of Adam."""

    @property
    def numbers(self) -> int:
        """Count of a network's numbers P."""
        return sum(out * (inputs + 1) for out, inputs in zip(self.sizes[1:], self.sizes, strict=False))

    def tensors(self, rows: Tensor) -> list[Tensor]:
        """Return views of rows [n, P]: weights [n, out, in] and biases [n, out, 1] of the layers, in turn."""
        views, start = [], 0
        for out, inputs in zip(self.sizes[1:], self.sizes, strict=False):
            for columns in (inputs, 1):
                views.append(rows[:, start : start + out * columns].view(len(rows), out, columns))
                start += out * columns
        return views

    def initial(self, generator: Generator) -> Tensor:
        """Return the numbers [P] of a new network: weights U(+-sqrt(6 / in) / omega), biases zero."""
        row = torch.zeros(1, self.numbers)
        for weight in self.tensors(row)[::2]:
            bound = (6 / weight.shape[2]) ** 0.5 / OMEGA
            weight.uniform_(-bound, bound, generator=generator)
        return row[0]


@dataclass(frozen=True)
class SirenFits:
    """n fitted SIRENs."""

    rows: Tensor
    """Numbers [n, P]."""
    decibels: Tensor
    """Peak signal-to-noise ratio [n] of the pictures that they draw."""
    steps: Tensor
    """Steps [n] that each fit took, int64."""


def draw(rows: Tensor, plan: SirenPlan, grid: Tensor) -> Tensor:
    """Return the pictures [n, colours, pixels] of SIRENs with numbers [n, P] at places [2, pixels]."""
    return _Pass(rows, plan, grid.expand(len(rows), *grid.shape)).outputs


class _Pass:
    """A forward pass of n SIRENs, and the backward pass through the same activations."""

    def __init__(self, rows: Tensor, plan: SirenPlan, inputs: Tensor):
        """Compute the outputs at places [n, 2, pixels]."""
        self._plan, self._tensors = plan, plan.tensors(rows)
        weights, biases = self._tensors[::2], self._tensors[1::2]
        self._inputs, self._arguments = [inputs], []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            arguments = torch.baddbmm(bias, weight, self._inputs[-1], beta=OMEGA, alpha=OMEGA)  # [n, out, pixels]
            self._arguments.append(arguments)
            self._inputs.append(arguments.sin())
        self.outputs = torch.baddbmm(biases[-1] + OFFSET, weights[-1], self._inputs[-1])
        """[n, colours, pixels]"""

    def gradient(self, by_outputs: Tensor) -> Tensor:
        """Return the gradient [n, P] of a loss by the numbers from that by the outputs, which is overwritten."""
        gradient = by_outputs.new_empty(len(by_outputs), self._plan.numbers)
        parts, weights = self._plan.tensors(gradient), self._tensors[::2]
        for layer in reversed(range(len(weights))):
            torch.bmm(by_outputs, self._inputs[layer].transpose(1, 2), out=parts[2 * layer])
            torch.sum(by_outputs, 2, keepdim=True, out=parts[2 * layer + 1])
            if layer:
                by_outputs = torch.bmm(weights[layer].transpose(1, 2), by_outputs)
                by_outputs.mul_(self._arguments[layer - 1].cos_()).mul_(OMEGA)
        return gradient


@torch.no_grad()
def fit_sirens(
    plan: SirenPlan,
    pictures: Tensor,
    grid: Tensor,
    generators: Sequence[Generator],
    after_fits: Callable[[int], object] = lambda count: None,
) -> SirenFits:
    """Fit a SIREN to each picture; the networks step together, on a CPU in chunks, and leave one by one.

    Args:
        plan: of the fits.
        pictures: targets [n, colours, pixels] in [0, 1]; their precision is that of the fits.
        grid: places [2, pixels] of the pixels.
        generators: of the initial numbers, one for each network.
        after_fits: called, for progress, with the number of fits that have ended.
    """
    size = len(pictures)
    if pictures.device.type == "cpu":
        size = max(1, _CHUNK_BYTES // (max(plan.sizes) * grid.shape[1] * pictures.element_size()))
    rows = torch.stack([plan.initial(generator) for generator in generators]).to(pictures)
    parts = [
        _fit_chunk(plan, part, targets, grid, after_fits)
        for part, targets in zip(rows.split(size), pictures.split(size), strict=True)
    ]
    return SirenFits(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _fit_chunk(
    plan: SirenPlan, rows: Tensor, targets: Tensor, grid: Tensor, after_fits: Callable[[int], object]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the fitted numbers [m, P], decibels [m] and steps [m]."""
    fitted, errors = rows.clone(), rows.new_zeros(len(rows))
    steps = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    left = torch.arange(len(rows), device=rows.device)  # indices of the networks that go on
    optimizer = PopulationOptimizer(["adam"] * len(rows), rows, rows.new_full((len(rows),), plan.lr), rows[:, 0] * 0)
    enough = 10 ** (-plan.decibels / 10)
    for step in range(plan.steps + 1):
        forward = _Pass(rows, plan, grid.expand(len(rows), *grid.shape))
        difference = forward.outputs - targets
        error = difference.square().mean((1, 2))
        done = (error <= enough) | (step == plan.steps)
        if done.any():
            ended, going = done.nonzero().flatten(), (~done).nonzero().flatten()
            fitted[left[ended]], errors[left[ended]], steps[left[ended]] = rows[ended], error[ended], step
            after_fits(len(ended))
            if not len(going):
                break
            left, rows, targets = left[going], rows[going], targets[going]
            optimizer.select(going.tolist(), rows)
            forward = _Pass(rows, plan, grid.expand(len(rows), *grid.shape))
            difference = difference[going]
        gradient = forward.gradient(difference.mul_(2 / difference[0].numel()))
        optimizer.step(gradient, rows.new_ones(len(rows)), torch.ones_like(left, dtype=torch.bool))
    return fitted, -10 * errors.log10(), steps
