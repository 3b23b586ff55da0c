"""The symmetry group of a feed-forward network of any activation, and a canonical form of its weights.

Neuron j of hidden layer s (or its feature map) reads row j of W^(s), and column j of W^(s+1) reads it. These changes
keep the function:

    W^(s)[j] -> factor[j] W^(s)[p(j)]      b^(s)[j] -> factor[j] b^(s)[p(j)] + pi phase[j] / omega
    W^(s+1)[:, j] -> (-1)^phase[j] / factor[j] W^(s+1)[:, p(j)]

    relu, leaky_relu    factors above 0 (arXiv 2409.11697)       tanh    factors 1 and -1
    none                factors other than 0                     sine    factors 1 and -1, whole phases
    gelu, sigmoid       factors 1

A kernel's numbers and those of flattened maps are multiplied alike. Layers that a residual connection adds up share
the permutation and the factors of their common maps, and have no phases. Maps that one adds to the outputs stay.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfn_transformer.groups.element import Element
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.spec import NetworkSpec

SCALED, SIGNED = ("relu", "leaky_relu", "none"), ("tanh", "sine", "none")
"""Activations that commute with positive factors, and those that are odd."""

# Beneath this share of a neuron's incoming weights a bias is taken for zero: rounding would decide its sign.
_NO_BIAS = 1e-5


@dataclass(frozen=True)
class NetworkElement(Element):
    """Element of the group.

    ```python
    spec = nfn.NetworkSpec((2, 16, 1), (None, None), activation="sine", omega=30.0)
    g = nfn.NetworkElement.sample(spec, torch.Generator().manual_seed(0))
    weights = (torch.randn(8, 16, 2, dtype=torch.float64), torch.randn(8, 1, 16, dtype=torch.float64))
    biases = (torch.randn(8, 16, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64))
    moved = g.act(nfn.NetworkWeights(spec, weights, biases))
    ```
    """

    permutations: tuple[Int64[Tensor, " _"], ...]
    """[n_s] for each hidden layer s."""
    factors: tuple[Float[Tensor, " _"], ...]
    """[n_s], other than 0."""
    phases: tuple[Int64[Tensor, " _"], ...]
    """[n_s], whole numbers; 0 for other activations than sine."""

    @classmethod
    def identity(cls, spec: NetworkSpec, dtype: torch.dtype = torch.float64) -> Self:
        """Return the element that changes nothing."""
        hidden = spec.sizes[1:-1]
        return cls(
            tuple(torch.arange(n) for n in hidden),
            tuple(torch.ones(n, dtype=dtype) for n in hidden),
            tuple(torch.zeros(n, dtype=torch.int64) for n in hidden),
        )

    @classmethod
    def sample(
        cls,
        spec: NetworkSpec,
        generator: torch.Generator,
        largest_scale: float = math.e,
        largest_phase: int = 3,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """Return a random element.

        Args:
            spec: sizes, activation and residual connections of the networks.
            generator: of the draws.
            largest_scale: sizes of factors are uniform in the logarithm from 1 / largest_scale to largest_scale.
            largest_phase: phases are uniform from -largest_phase to largest_phase.
            dtype: of the factors.
        """
        widest, has_phases = max(spec.sizes[1:-1]), spec.activation == "sine" and max(spec.residuals, default=-1) < 0
        phase = largest_phase if has_phases else 0
        drawn: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        groups = _added_up(spec)
        for group in dict.fromkeys(groups[:-1]):
            ends = sorted({n for n, other in zip(spec.sizes[1:-1], groups, strict=False) if other == group})
            blocks = zip((0, *ends), ends, strict=False)  # maps that the same layers have
            order = torch.cat([start + torch.randperm(end - start, generator=generator) for start, end in blocks])
            uniform = 2 * torch.rand(widest, generator=generator, dtype=torch.float64) - 1
            signs = 2 * torch.randint(2, (widest,), generator=generator) - 1
            phases = torch.randint(-phase, phase + 1, (widest,), generator=generator)
            factors = largest_scale**uniform if spec.activation in SCALED else torch.ones_like(uniform)
            drawn[group] = order, (factors * signs if spec.activation in SIGNED else factors).to(dtype), phases
        if groups[-1] in drawn:  # added to the outputs
            drawn[groups[-1]] = torch.arange(widest), torch.ones(widest, dtype=dtype), torch.zeros(widest).long()
        layers = [
            (order[:n], factors[:n], phases[:n])
            for n, (order, factors, phases) in zip(spec.sizes[1:-1], map(drawn.__getitem__, groups[:-1]), strict=True)
        ]
        return cls(*zip(*layers, strict=True))

    def act(self, weights: NetworkWeights) -> NetworkWeights:
        """Return the transformed weights of b networks."""
        matrices, biases = list(weights.weights), list(weights.biases)
        for s, (order, factor, phase) in enumerate(zip(self.permutations, self.factors, self.phases, strict=True)):
            biases[s] = factor * biases[s][:, order] + phase.to(factor.dtype) * (math.pi / weights.spec.omega)
            matrices[s] = _rows(matrices[s][:, order], factor)
            matrices[s + 1] = _columns(matrices[s + 1][:, :, order], (1 - 2 * (phase % 2)) / factor)
        return replace(weights, weights=tuple(matrices), biases=tuple(biases))

    def __matmul__(self, first: Self) -> Self:
        layers = range(len(self.permutations))
        return type(self)(
            tuple(first.permutations[s][self.permutations[s]] for s in layers),
            tuple(self.factors[s] * first.factors[s][self.permutations[s]] for s in layers),
            tuple(
                self.phases[s] + self.factors[s].sign().long() * first.phases[s][self.permutations[s]] for s in layers
            ),
        )

    def __invert__(self) -> Self:
        inverses = tuple(torch.argsort(p) for p in self.permutations)
        factors = tuple(1 / factor[p] for factor, p in zip(self.factors, inverses, strict=True))
        phases = tuple(
            -factor.sign().long() * phase[p] for factor, phase, p in zip(factors, self.phases, inverses, strict=True)
        )
        return type(self)(inverses, factors, phases)


def _rows(matrix: Tensor, factors: Tensor) -> Tensor:
    """Multiply the rows of [b, n, m, ...] by factors [n] or [b, n]."""
    return matrix * factors.view(*factors.shape, *(1 for _ in range(matrix.ndim - 2)))


def _columns(matrix: Tensor, factors: Tensor) -> Tensor:
    """Multiply the columns of [b, m, n, ...] by factors [n] or [b, n]."""
    return _rows(matrix.transpose(1, 2), factors).transpose(1, 2)


def _added_up(spec: NetworkSpec) -> list[int]:
    """Return for each layer the first one of those that residual connections add up with it."""
    first = list(range(spec.layers))
    for layer, other in enumerate(spec.residuals):
        if other >= 0:
            first = [first[other] if group == first[layer] else group for group in first]
    return first


class CanonicalForm(NamedTuple):
    """Canonical weights, and what they were multiplied by."""

    weights: NetworkWeights
    """Weights of the same function."""
    rows: tuple[Float[Tensor, "b _"], ...]
    """Factors [b, n_s] of each hidden neuron's incoming weights and bias."""
    columns: tuple[Float[Tensor, "b _"], ...]
    """Factors [b, n_s] of each hidden neuron's outgoing weights."""

    def undo(self, change: NetworkWeights) -> NetworkWeights:
        """Return a change of the canonical weights as one of the original weights."""
        matrices, biases = list(change.weights), list(change.biases)
        for s, (row, column) in enumerate(zip(self.rows, self.columns, strict=True)):
            matrices[s], biases[s] = _rows(matrices[s], 1 / row), biases[s] / row
            matrices[s + 1] = _columns(matrices[s + 1], 1 / column)
        return replace(change, weights=tuple(matrices), biases=tuple(biases))


def canonical_form(weights: NetworkWeights, scales: bool = False, signs: bool = True) -> CanonicalForm:
    """Return weights that only permutations of hidden neurons change; without residual connections of one function.

    Sine neurons get a phase with biases in [-pi / (2 omega), pi / (2 omega)]. Neurons of odd activations get the sign
    by which their bias is not negative; without a bias, the sum of their incoming weights. With `scales`, neurons of
    relu get incoming weights of norm 1.

    The form jumps where a bias is 0, or a phase half of a whole number. There alone a small change of the weights is a
    large one of the form.

    Args:
        weights: of b networks.
        scales: also remove positive factors, where the activation commutes with them.
        signs: remove signs; else the form is one up to permutations and signs.
    """
    spec, matrices, biases = weights.spec, list(weights.weights), list(weights.biases)
    rows, columns = [], []
    for s in range(spec.layers - 1):
        row = column = torch.ones_like(biases[s])
        if spec.activation == "sine":
            phase = torch.round(biases[s] * (spec.omega / math.pi))
            biases[s], column = biases[s] - phase * (math.pi / spec.omega), 1 - 2 * (phase % 2)
        incoming = matrices[s].flatten(2)
        norm = torch.linalg.vector_norm(torch.cat([incoming, biases[s][..., None]], dim=2), dim=2)
        if signs and spec.activation in SIGNED:
            tells = torch.where(biases[s].abs() > _NO_BIAS * norm, biases[s], incoming.sum(2))
            row = torch.where(tells < 0, -row, row)
        if scales and spec.activation in SCALED:
            row = row / torch.where(norm > 0, norm, 1.0)
        matrices[s], biases[s] = _rows(matrices[s], row), biases[s] * row
        column = column / row
        matrices[s + 1] = _columns(matrices[s + 1], column)
        rows.append(row)
        columns.append(column)
    form = replace(weights, weights=tuple(matrices), biases=tuple(biases))
    return CanonicalForm(form, tuple(rows), tuple(columns))
