"""The symmetry group of a feed-forward network with sine neurons, and canonical phases.

A hidden neuron computes sin(omega (w h + b)), and the next layer reads it with weights v. Three changes keep the
function. Neurons of a layer are permuted. A sign is (w, b, v) -> (-w, -b, -v), as sine is odd. A phase is
(b, v) -> (b + pi k / omega, (-1)^k v) for a whole number k. Hidden layers s = 1, ..., L-1 carry g_s:

    W^(s)[j] -> sign[j] W^(s)[p(j)]      b^(s)[j] -> sign[j] b^(s)[p(j)] + pi phase[j] / omega
    W^(s+1)[:, j] -> sign[j] (-1)^phase[j] W^(s+1)[:, p(j)]

Neurons with another odd activation, such as tanh, have the elements whose phases are 0.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Int64
from torch import Tensor

from nfn_transformer.groups.element import Element
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


@dataclass(frozen=True)
class SineElement(Element):
    """Element of the group: permutation, signs and phases for each hidden layer s."""

    permutations: tuple[Int64[Tensor, " _"], ...]
    """[n_s] for each hidden layer."""
    signs: tuple[Int64[Tensor, " _"], ...]
    """[n_s], 1 or -1."""
    phases: tuple[Int64[Tensor, " _"], ...]
    """[n_s], whole numbers k; 0 for other odd activations than sine."""

    @classmethod
    def identity(cls, spec: FeedForwardSpec) -> Self:
        """Return the element that changes nothing."""
        hidden = spec.sizes[1:-1]
        return cls(
            tuple(torch.arange(n) for n in hidden),
            tuple(torch.ones(n, dtype=torch.int64) for n in hidden),
            tuple(torch.zeros(n, dtype=torch.int64) for n in hidden),
        )

    @classmethod
    def sample(cls, spec: FeedForwardSpec, generator: torch.Generator, largest_phase: int = 3) -> Self:
        """Return a random element: uniform permutations, signs, and phases from -largest_phase to largest_phase."""
        hidden, top = spec.sizes[1:-1], largest_phase + 1
        return cls(
            tuple(torch.randperm(n, generator=generator) for n in hidden),
            tuple(2 * torch.randint(2, (n,), generator=generator) - 1 for n in hidden),
            tuple(torch.randint(1 - top, top, (n,), generator=generator) for n in hidden),
        )

    def act(self, weights: FeedForwardWeights, omega: float = 1.0) -> FeedForwardWeights:
        """Return the transformed weights.

        Args:
            weights: of any number of channels; the first holds the biases, as `weights.feed_forward_networks` says.
            omega: frequency omega_0 of the sines; it has no meaning where all phases are 0.
        """
        matrices, biases = list(weights.weights), list(weights.biases)
        for s, (permutation, sign, phase) in enumerate(zip(self.permutations, self.signs, self.phases, strict=True)):
            matrices[s] = sign[:, None] * matrices[s][..., permutation, :]
            biases[s] = sign * biases[s][..., permutation]
            biases[s][:, 0] += phase.to(biases[s].dtype) * (math.pi / omega)
            matrices[s + 1] = matrices[s + 1][..., permutation] * (sign * (1 - 2 * (phase % 2)))
        return FeedForwardWeights(tuple(matrices), tuple(biases))

    def __matmul__(self, first: Self) -> Self:
        layers = range(len(self.permutations))
        return type(self)(
            tuple(first.permutations[s][self.permutations[s]] for s in layers),
            tuple(self.signs[s] * first.signs[s][self.permutations[s]] for s in layers),
            tuple(self.phases[s] + self.signs[s] * first.phases[s][self.permutations[s]] for s in layers),
        )

    def __invert__(self) -> Self:
        inverses = tuple(torch.argsort(p) for p in self.permutations)
        signs = tuple(sign[p] for sign, p in zip(self.signs, inverses, strict=True))
        phases = tuple(-sign * k[p] for sign, k, p in zip(signs, self.phases, inverses, strict=True))
        return type(self)(inverses, signs, phases)


def canonical_phases(weights: FeedForwardWeights, omega: float) -> FeedForwardWeights:
    """Return the weights of the same function whose hidden biases lie in [-pi / (2 omega), pi / (2 omega)].

    Every phase of a neuron gives the same result. A sign of a neuron changes it as before: (w, b, v) -> (-w, -b, -v).

    Args:
        weights: of networks with sine neurons, with any number of channels, the biases in the first one.
        omega: frequency omega_0 of the sines, above 0.
    """
    matrices, biases = list(weights.weights), list(weights.biases)
    for s, bias in enumerate(biases[:-1]):
        phase = torch.round(bias[:, 0] * (omega / math.pi))  # [b, n_s]
        biases[s] = torch.cat([(bias[:, 0] - phase * (math.pi / omega)).unsqueeze(1), bias[:, 1:]], dim=1)
        matrices[s + 1] = matrices[s + 1] * (1 - 2 * (phase % 2))[:, None, None]
    return FeedForwardWeights(tuple(matrices), tuple(biases))
