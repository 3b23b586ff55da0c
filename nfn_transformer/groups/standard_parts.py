"""Parts of an element of the group of standard transformers (`groups.standard_transformer`)."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfn_transformer.groups.complete_block import random_rotation, random_scales
from nfn_transformer.groups.element import Element
from nfn_transformer.groups.network import SCALED, SIGNED
from nfn_transformer.groups.published import random_invertible
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

IDENTITY, SIGN, SIGNS, ONES, ORTHOGONAL = (
    "identity",
    "permutations and one sign",
    "permutations and signs",
    "orthogonal, ones to ones or their negative",
    "orthogonal",
)
"""Kinds of matrices that turn a stream."""


@dataclass(frozen=True)
class StreamElement(Element):
    """Part of an element in a residual stream."""

    R: Float[Tensor, "D D"]
    """Orthogonal: what writes is multiplied by R, what reads by its transpose."""

    @classmethod
    def sample(cls, kind: str, width: int, generator: torch.Generator, dtype: torch.dtype) -> Self:
        """Return a random element, with R of a kind as IDENTITY."""
        sign = 2 * torch.randint(2, (width if kind == SIGNS else 1,), generator=generator) - 1
        R = torch.eye(width, dtype=torch.float64)
        if kind in (SIGN, SIGNS):
            R = R[torch.randperm(width, generator=generator)]
        elif kind == ONES:
            R = random_rotation(width, generator)
        elif kind == ORTHOGONAL:
            R = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
        return cls((R if kind == IDENTITY else R * sign).to(dtype))

    def __matmul__(self, first: Self) -> Self:
        return type(self)(first.R @ self.R)

    def __invert__(self) -> Self:
        return type(self)(self.R.T)


@dataclass(frozen=True)
class HeadsElement(Element):
    """Part of an element in the heads of a block: g groups of q query heads each; without groups q is 1."""

    tau: Int64[Tensor, " g"]
    """Permutation of the groups."""
    sigma: Int64[Tensor, "g q"]
    """Permutation of the query heads of each group."""
    M: Float[Tensor, "g d_k d_k"]
    """Mixes queries; keys are mixed by the inverse of its transpose."""
    N: Float[Tensor, "g d_v d_v"]
    """Mixes values; outputs are mixed by its inverse."""

    @classmethod
    def sample(
        cls, spec: StandardTransformerSpec, generator: torch.Generator, condition: float, dtype: torch.dtype
    ) -> Self:
        """Return a random element; see `StandardElement.sample`."""
        g, q, half = spec.groups, spec.heads // spec.groups, spec.key // 2
        tau = torch.randperm(g, generator=generator)
        sigma = torch.stack([torch.randperm(q, generator=generator) for _ in range(g)])
        if spec.positions == "rope":
            uniform, turn = torch.rand(2, g, half, generator=generator, dtype=torch.float64)
            size, angle = condition ** (uniform - 0.5), 2 * torch.pi * turn
            cosine, sine = torch.diag_embed(size * angle.cos()), torch.diag_embed(size * angle.sin())
            M = torch.cat([torch.cat([cosine, -sine], dim=2), torch.cat([sine, cosine], dim=2)], dim=1)
        else:
            M, _ = random_invertible(g, spec.key, condition, generator)
        N, _ = random_invertible(g, spec.value, condition, generator)
        return cls(tau, sigma, M.to(dtype), N.to(dtype))

    @property
    def heads(self) -> Int64[Tensor, " h"]:
        """Return for each query head the index of the one that takes its place."""
        return (self.tau[:, None] * self.sigma.shape[1] + self.sigma).flatten()

    def __matmul__(self, first: Self) -> Self:
        tau = self.tau
        sigma = first.sigma[tau].gather(1, self.sigma)
        return type(self)(first.tau[tau], sigma, first.M[tau] @ self.M, first.N[tau] @ self.N)

    def __invert__(self) -> Self:
        tau = torch.argsort(self.tau)
        sigma = torch.argsort(self.sigma[tau], dim=1)
        return type(self)(tau, sigma, torch.linalg.inv(self.M[tau]), torch.linalg.inv(self.N[tau]))


@dataclass(frozen=True)
class NeuronsElement(Element):
    """Part of an element in hidden neurons, of a block's MLP or of a head."""

    pi: Int64[Tensor, " n"]
    """Permutation."""
    c: Float[Tensor, " n"]
    """Factors other than 0; what reads the neurons is divided by them."""

    @classmethod
    def sample(cls, count: int, activation: str, generator: torch.Generator, dtype: torch.dtype) -> Self:
        """Return a random element with the factors that an activation allows; `none` allows negative ones."""
        pi, c = torch.randperm(count, generator=generator), random_scales((count,), generator, dtype)
        sign = (2 * torch.randint(2, (count,), generator=generator) - 1).to(dtype)
        c = c if activation in SCALED else torch.ones_like(c)
        return cls(pi, c * sign if activation in SIGNED else c)

    def __matmul__(self, first: Self) -> Self:
        return type(self)(first.pi[self.pi], first.c[self.pi] * self.c)

    def __invert__(self) -> Self:
        pi = torch.argsort(self.pi)
        return type(self)(pi, 1 / self.c[pi])
