"""The symmetry group of a feed-forward ReLU network's weights (Monomial-NFN, arXiv 2409.11697).

Hidden layers s = 1, ..., L-1 carry g_s, a positive diagonal matrix times a permutation; g_0 = g_L = 1:

    W^(s) -> g_s W^(s) g_(s-1)^-1        b^(s) -> g_s b^(s)        (g x)[j] = scale[j] x[permutation[j]]
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


@dataclass(frozen=True)
class MonomialElement:
    """One element: for each hidden layer s a permutation [n_s] (int64) and positive scales [n_s]."""

    permutations: tuple[Tensor, ...]
    scales: tuple[Tensor, ...]

    @classmethod
    def identity(cls, spec: FeedForwardSpec, dtype: torch.dtype = torch.float64) -> Self:
        """The element that changes nothing."""
        hidden = spec.sizes[1:-1]
        return cls(tuple(torch.arange(n) for n in hidden), tuple(torch.ones(n, dtype=dtype) for n in hidden))

    @classmethod
    def sample(cls, spec: FeedForwardSpec, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Self:
        """A random element: uniform permutations, scales between 1/e and e, uniform in the logarithm."""
        hidden = spec.sizes[1:-1]
        permutations = tuple(torch.randperm(n, generator=generator) for n in hidden)
        uniform = (torch.rand(n, generator=generator, dtype=torch.float64) for n in hidden)
        return cls(permutations, tuple(torch.exp(2 * u - 1).to(dtype) for u in uniform))

    def act(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """The transformed weights, for all networks and channels alike."""
        matrices, biases = list(weights.weights), list(weights.biases)
        for s, (permutation, scale) in enumerate(zip(self.permutations, self.scales, strict=True)):
            matrices[s] = scale[:, None] * matrices[s][..., permutation, :]
            biases[s] = scale * biases[s][..., permutation]
            matrices[s + 1] = matrices[s + 1][..., permutation] / scale
        return FeedForwardWeights(tuple(matrices), tuple(biases))

    def compose(self, first: Self) -> Self:
        """The product that acts as `first` and then as this element."""
        return type(self)(
            tuple(f[p] for p, f in zip(self.permutations, first.permutations, strict=True)),
            tuple(scale * f[p] for p, scale, f in zip(self.permutations, self.scales, first.scales, strict=True)),
        )

    def inverse(self) -> Self:
        """The element that undoes this one."""
        inverses = tuple(torch.argsort(p) for p in self.permutations)
        return type(self)(inverses, tuple(1 / s[p] for s, p in zip(self.scales, inverses, strict=True)))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """The element on a device, its scales in `dtype`."""
        return replace(
            self,
            permutations=tuple(p.to(device) for p in self.permutations),
            scales=tuple(s.to(device, dtype) for s in self.scales),
        )
