"""Scales of inputs, fitted to networks before the first epoch, along axes that no symmetry tells apart."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

# Standardised numbers are clamped to this many deviations: a network unlike all others stays readable.
_FARTHEST = 4.0
_TINY = 1e-12


class Standardize(nn.Module):
    """Map of numbers [..., size] to mean 0 and deviation 1 over the numbers of `fit`.

    Args:
        groups: count of neighbouring numbers that share mean and deviation, group after group.
        least: smallest deviation; numbers that differ less are taken to be the same.
        log_magnitudes: first map each number x to sign(x) log(1 + |x| / u), u the geometric mean of all |x| > 0.
    """

    mean: Float[Tensor, " groups"]
    deviation: Float[Tensor, " groups"]
    unit: Float[Tensor, " groups"]
    group: Int64[Tensor, " size"] | None

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

    def fit(self, features: Iterable[Tensor]) -> None:
        """Set the scales from numbers [m, size] of the networks, part by part; up to four passes are made."""
        if self.log_magnitudes:
            # Zeros add nothing to the sum of logarithms and are not counted.
            share = self._mean((part != 0) for part in features).clamp(min=_TINY)
            logarithms = self._mean(torch.where(part != 0, part, 1).double().abs().log() for part in features)
            self.unit.copy_((logarithms / share).exp())
        mean = self._mean(self._logarithmic(part.double()) for part in features)
        self.mean.copy_(mean)
        squares = ((self._logarithmic(part.double()) - self._spread(mean)).square() for part in features)
        self.deviation.copy_(self._mean(squares).sqrt().clamp(min=self.least))

    def forward(self, numbers: Float[Tensor, "*n size"]) -> Float[Tensor, "*n size"]:
        """Return the standardised numbers, clamped to four deviations."""
        standard = (self._logarithmic(numbers) - self._spread(self.mean)) / self._spread(self.deviation)
        return standard.clamp(-_FARTHEST, _FARTHEST)

    def extra_repr(self) -> str:
        """Return the size and the count of groups, as `print(module)` shows them."""
        size = len(self.mean) if self.group is None else len(self.group)
        return f"{size} numbers in {len(self.mean)} groups, log_magnitudes={self.log_magnitudes}"

    def _logarithmic(self, numbers: Tensor) -> Tensor:
        if not self.log_magnitudes:
            return numbers
        return numbers.sign() * torch.log1p(numbers.abs() / self._spread(self.unit))

    def _mean(self, parts: Iterable[Tensor]) -> Float64[Tensor, " groups"]:
        """Return each group's mean over numbers [m, size] of all parts."""
        total, networks = None, 0
        for part in parts:
            sums = part.double().sum(0)
            total, networks = sums if total is None else total + sums, networks + len(part)
        if total is None:
            raise ValueError("scales of no networks, expected at least one")
        if self.group is None:
            return total / networks
        by_group = total.new_zeros(len(self.mean)).index_add(0, self.group, total)
        return by_group / torch.bincount(self.group, minlength=len(self.mean)) / networks

    def _spread(self, of_groups: Float[Tensor, " groups"]) -> Float[Tensor, " size"]:
        """Repeat the number of each group for all its members."""
        return of_groups if self.group is None else of_groups[self.group]


class Reiterable:
    """Iterable that starts anew on every pass.

    Args:
        iterate: makes an iterator.
    """

    def __init__(self, iterate: Callable[[], Iterator]):
        self._iterate = iterate

    def __iter__(self) -> Iterator:
        return self._iterate()


class RootMeanSquares(nn.Module):
    """Root mean square of each of `count` tensors over the networks of `fit`: [count].

    If a group acts linearly on each tensor, dividing by the root mean square commutes with the action. Subtracting a
    mean would not.
    """

    sizes: Tensor

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("sizes", torch.ones(count))

    def fit(self, features: Iterable[Sequence[Tensor]]) -> None:
        """Set the root mean squares from tensors [m, ...] of the networks, part by part; one pass is made."""
        squares, networks = torch.zeros(len(self.sizes), dtype=torch.float64, device=self.sizes.device), 0
        for tensors in features:
            squares += torch.stack([tensor.double().square().flatten(1).mean(1).sum() for tensor in tensors])
            networks += len(tensors[0])
        self.sizes.copy_((squares / networks).sqrt().clamp(min=_TINY))

    def extra_repr(self) -> str:
        """Return the count of tensors, as `print(module)` shows it."""
        return f"{len(self.sizes)} tensors"

    def forward(self) -> Float[Tensor, " count"]:
        """Return the root mean squares."""
        return self.sizes
