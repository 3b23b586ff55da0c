"""Permutations of a feed-forward network's neurons (Zhou et al. 2023, arXiv 2302.14040), as group elements.

    W^(s) -> P_s W^(s) P_(s-1)^-1        b^(s) -> P_s b^(s)        (P x)[j] = x[permutation[j]]

Hidden layers s = 1, ..., L-1 are permuted; with `outer`, inputs (s = 0) and outputs (s = L) too.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


@dataclass(frozen=True)
class PermutationElement:
    """One element: for each layer s = 0, ..., L a permutation [n_s], int64; those that stay have the identity."""

    permutations: tuple[Tensor, ...]

    @classmethod
    def identity(cls, spec: FeedForwardSpec) -> Self:
        """The element that changes nothing."""
        return cls(tuple(torch.arange(n) for n in spec.sizes))

    @classmethod
    def sample(cls, spec: FeedForwardSpec, generator: torch.Generator, outer: bool = False) -> Self:
        """A random element, uniform; of the hidden layers alone, or with `outer` of all."""
        found = [torch.randperm(n, generator=generator) for n in spec.sizes]
        if not outer:
            found[0], found[-1] = torch.arange(spec.sizes[0]), torch.arange(spec.sizes[-1])
        return cls(tuple(found))

    def act(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """The transformed weights, for all networks and channels alike."""
        sides = list(zip(self.permutations[1:], self.permutations, strict=False))
        return FeedForwardWeights(
            tuple(W[..., rows, :][..., columns] for W, (rows, columns) in zip(weights.weights, sides, strict=True)),
            tuple(b[..., rows] for b, (rows, _) in zip(weights.biases, sides, strict=True)),
        )

    def compose(self, first: Self) -> Self:
        """The product that acts as `first` and then as this element."""
        return type(self)(tuple(f[p] for p, f in zip(self.permutations, first.permutations, strict=True)))

    def inverse(self) -> Self:
        """The element that undoes this one."""
        return type(self)(tuple(torch.argsort(p) for p in self.permutations))
