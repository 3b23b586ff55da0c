"""Scales of inputs, learned from networks before the first epoch, along axes that no symmetry tells apart."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

# Standardised numbers beyond this many deviations count as so many: a network unlike all that were seen stays readable.
_FARTHEST = 4.0
_TINY = 1e-12


class Standardize(nn.Module):
    """Map of numbers [..., size] to mean 0 and deviation 1 over the numbers that `fit` has seen.

    Args:
        groups: how many neighbouring numbers share mean and deviation, group after group; all 1 where each has its own.
        least: a deviation below it counts as so much: what differs less is taken to be the same.
        log_magnitudes: of numbers x first take sign(x) log(1 + |x| / u), with u the geometric mean of all |x| > 0.
    """

    def __init__(self, groups: Sequence[int], least: float = _TINY, log_magnitudes: bool = False):
        super().__init__()
        self.least, self.log_magnitudes = least, log_magnitudes
        self.register_buffer("mean", torch.zeros(len(groups)))
        self.register_buffer("deviation", torch.ones(len(groups)))
        if log_magnitudes:
            self.register_buffer("unit", torch.ones(len(groups)))
        sizes = torch.tensor(groups, dtype=torch.int64)
        group = None if all(size == 1 for size in groups) else torch.arange(len(groups)).repeat_interleave(sizes)
        self.register_buffer("group", group, persistent=False)

    def fit(self, seen: Iterable[Tensor]) -> None:
        """Take the scales over numbers [m, size] of each part of `seen`, which is gone through up to four times."""
        if self.log_magnitudes:
            # Of numbers that are 0 there is nothing to add, and nobody to share the sum with.
            there = self._mean((part != 0) for part in seen).clamp(min=_TINY)
            logarithms = self._mean(torch.where(part != 0, part, 1).double().abs().log() for part in seen)
            self.unit.copy_((logarithms / there).exp())
        mean = self._mean(self._logarithmic(part.double()) for part in seen)
        self.mean.copy_(mean)
        around = ((self._logarithmic(part.double()) - self._spread(mean)).square() for part in seen)
        self.deviation.copy_(self._mean(around).sqrt().clamp(min=self.least))

    def forward(self, numbers: Tensor) -> Tensor:
        """Standardised, and cut off at four deviations."""
        standard = (self._logarithmic(numbers) - self._spread(self.mean)) / self._spread(self.deviation)
        return standard.clamp(-_FARTHEST, _FARTHEST)

    def _logarithmic(self, numbers: Tensor) -> Tensor:
        if not self.log_magnitudes:
            return numbers
        return numbers.sign() * torch.log1p(numbers.abs() / self._spread(self.unit))

    def _mean(self, parts: Iterable[Tensor]) -> Tensor:
        """Each group's mean over numbers [m, size] of all parts: [groups], float64."""
        total, networks = None, 0
        for part in parts:
            sums = part.double().sum(0)
            total, networks = sums if total is None else total + sums, networks + len(part)
        if self.group is None:
            return total / networks
        by_group = total.new_zeros(len(self.mean)).index_add(0, self.group, total)
        return by_group / torch.bincount(self.group, minlength=len(self.mean)) / networks

    def _spread(self, of_groups: Tensor) -> Tensor:
        """From [groups] to [size]."""
        return of_groups if self.group is None else of_groups[self.group]


class Reiterable:
    """Re-iterable: an iterable that starts anew on every pass.

    Args:
        iterate: makes an iterator.
    """

    def __init__(self, iterate: Callable[[], Iterator]):
        self._iterate = iterate

    def __iter__(self) -> Iterator:
        return self._iterate()


class RootMeanSquares(nn.Module):
    """Root mean squares of tensors over what `fit` has seen, for each of `count` tensors one number: [count].

    Where a group acts linearly on each tensor, dividing by its size commutes with the action; taking off a mean would
    not.
    """

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("sizes", torch.ones(count))

    def fit(self, seen: Iterable[Sequence[Tensor]]) -> None:
        """Take the sizes over the tensors [m, ...] of each part that is seen."""
        squares, networks = torch.zeros(len(self.sizes), dtype=torch.float64, device=self.sizes.device), 0
        for tensors in seen:
            squares += torch.stack([tensor.double().square().flatten(1).mean(1).sum() for tensor in tensors])
            networks += len(tensors[0])
        self.sizes.copy_((squares / networks).sqrt().clamp(min=_TINY))

    def forward(self) -> Tensor:
        """The sizes."""
        return self.sizes
