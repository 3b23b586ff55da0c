"""Permutations of a feed-forward network's neurons (Zhou et al. 2023, arXiv 2302.14040), as group elements.

    W^(s) -> P_s W^(s) P_(s-1)^-1        b^(s) -> P_s b^(s)        (P x)[j] = x[permutation[j]]

Hidden layers s = 1, ..., L-1 are permuted; with `outer`, inputs (s = 0) and outputs (s = L) too.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Int64
from torch import Tensor

from nfn_transformer.groups.element import Element
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


@dataclass(frozen=True)
class PermutationElement(Element):
    """Element of the group: a permutation for each layer s = 0, ..., L, the identity where neurons stay.

    ```python
    classifier = zoo.weights(torch.arange(8)).classifier
    g = nfn.PermutationElement.sample(classifier.spec, torch.Generator().manual_seed(0))
    moved = g.act(classifier)
    ```
    """

    permutations: tuple[Int64[Tensor, " _"], ...]
    """[n_s] for each layer."""

    @classmethod
    def identity(cls, spec: FeedForwardSpec) -> Self:
        """Return the element that changes nothing."""
        return cls(tuple(torch.arange(n) for n in spec.sizes))

    @classmethod
    def sample(cls, spec: FeedForwardSpec, generator: torch.Generator, outer: bool = False) -> Self:
        """Return a uniform random element of the hidden layers alone, or with `outer` of all layers."""
        permutations = [torch.randperm(n, generator=generator) for n in spec.sizes]
        if not outer:
            permutations[0], permutations[-1] = torch.arange(spec.sizes[0]), torch.arange(spec.sizes[-1])
        return cls(tuple(permutations))

    def act(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Return the transformed weights, for all networks and channels alike."""
        sides = list(zip(self.permutations[1:], self.permutations, strict=False))
        return FeedForwardWeights(
            tuple(W[..., rows, :][..., columns] for W, (rows, columns) in zip(weights.weights, sides, strict=True)),
            tuple(b[..., rows] for b, (rows, _) in zip(weights.biases, sides, strict=True)),
        )

    def __matmul__(self, first: Self) -> Self:
        return type(self)(tuple(f[p] for p, f in zip(self.permutations, first.permutations, strict=True)))

    def __invert__(self) -> Self:
        return type(self)(tuple(torch.argsort(p) for p in self.permutations))
