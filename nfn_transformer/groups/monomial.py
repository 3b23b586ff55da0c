"""The symmetry group of a feed-forward ReLU network's weights (Monomial-NFN, arXiv 2409.11697).

Hidden layers s = 1, ..., L-1 carry g_s, a positive diagonal matrix times a permutation; g_0 = g_L = 1:

    W^(s) -> g_s W^(s) g_(s-1)^-1        b^(s) -> g_s b^(s)        (g x)[j] = scale[j] x[permutation[j]]
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfn_transformer.groups.element import Element
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


@dataclass(frozen=True)
class MonomialElement(Element):
    """Element of the group: a monomial matrix for each hidden layer s.

    ```python
    classifier = zoo.weights(torch.arange(8)).classifier.to(torch.float64)
    g = nfn.MonomialElement.sample(classifier.spec, torch.Generator().manual_seed(0))
    moved = g.act(classifier)
    ```
    """

    permutations: tuple[Int64[Tensor, " _"], ...]
    """[n_s] for each hidden layer."""
    scales: tuple[Float[Tensor, " _"], ...]
    """[n_s], positive, for each hidden layer."""

    @classmethod
    def identity(cls, spec: FeedForwardSpec, dtype: torch.dtype = torch.float64) -> Self:
        """Return the element that changes nothing."""
        hidden = spec.sizes[1:-1]
        return cls(tuple(torch.arange(n) for n in hidden), tuple(torch.ones(n, dtype=dtype) for n in hidden))

    @classmethod
    def sample(cls, spec: FeedForwardSpec, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Self:
        """Return a random element: uniform permutations, scales between 1/e and e, uniform in the logarithm."""
        hidden = spec.sizes[1:-1]
        permutations = tuple(torch.randperm(n, generator=generator) for n in hidden)
        uniform = (torch.rand(n, generator=generator, dtype=torch.float64) for n in hidden)
        return cls(permutations, tuple(torch.exp(2 * u - 1).to(dtype) for u in uniform))

    def act(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Return the transformed weights, for all networks and channels alike."""
        matrices, biases = list(weights.weights), list(weights.biases)
        for s, (permutation, scale) in enumerate(zip(self.permutations, self.scales, strict=True)):
            matrices[s] = scale[:, None] * matrices[s][..., permutation, :]
            biases[s] = scale * biases[s][..., permutation]
            matrices[s + 1] = matrices[s + 1][..., permutation] / scale
        return FeedForwardWeights(tuple(matrices), tuple(biases))

    def __matmul__(self, first: Self) -> Self:
        return type(self)(
            tuple(f[p] for p, f in zip(self.permutations, first.permutations, strict=True)),
            tuple(scale * f[p] for p, scale, f in zip(self.permutations, self.scales, first.scales, strict=True)),
        )

    def __invert__(self) -> Self:
        inverses = tuple(torch.argsort(p) for p in self.permutations)
        return type(self)(inverses, tuple(1 / s[p] for s, p in zip(self.scales, inverses, strict=True)))
