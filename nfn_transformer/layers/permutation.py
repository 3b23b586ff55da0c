"""NP and HNP layers and pooling for feed-forward networks (Zhou et al. 2023, arXiv 2302.14040).

W^(s) has the axes of the layers s and s - 1, b^(s) that of layer s. Axes of layers whose neurons may be permuted are
free: those of hidden layers (HNP), or of all layers (NP). A linear map from one tensor to another commutes with the
permutations if

- along each free axis that both have, entries are taken one by one, or by their mean;
- along each free axis of the input alone, the mean is taken;
- along each free axis of the output alone, the result is repeated;
- axes that are not free are mixed by any matrix.

No tensor has an axis twice, so these are all such maps. A layer is their sum over all pairs of tensors, and a constant.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfn_transformer.layers.base import Fan, WeightSpaceLayer, WeightSpaceModule
from nfn_transformer.layers.permutation_product import ProductLayout, permutation_product
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec

Axes = tuple[int, ...]
"""The layer, counted from 0 for the inputs, of each axis of a tensor after [b, d]."""

HIDDEN, ALL = "hidden neurons permuted", "neurons of all layers permuted"


def tensor_axes(spec: FeedForwardSpec) -> list[Axes]:
    """Return the axes of the weights W^(1), ..., W^(L), and then of the biases b^(1), ..., b^(L)."""
    layers = range(1, spec.layers + 1)
    return [*((s, s - 1) for s in layers), *((s,) for s in layers)]


def free_axes(spec: FeedForwardSpec, outer: bool) -> frozenset[int]:
    """Return the layers whose neurons may be permuted: the hidden ones, and with `outer` inputs and outputs too."""
    return frozenset(range(spec.layers + 1) if outer else range(1, spec.layers))


@dataclass(frozen=True)
class TensorMap:
    """Linear map from one tensor to another, both numbered in the order of `tensor_axes`."""

    target: int
    source: int
    kept: Axes
    """Free axes along which entries are taken one by one."""


def tensor_maps(spec: FeedForwardSpec, free: frozenset[int]) -> Iterator[TensorMap]:
    """Yield all maps that a layer is the sum of."""
    axes = tensor_axes(spec)
    for target, source in itertools.product(range(len(axes)), repeat=2):
        common = [axis for axis in axes[target] if axis in axes[source] and axis in free]
        for count in range(len(common) + 1):
            for kept in itertools.combinations(common, count):
                yield TensorMap(target, source, kept)


class PermutationLinear(WeightSpaceLayer[FeedForwardSpec]):
    """Base of `NPLinear` and `HNPLinear`: every linear map that commutes with the permutations.

    Arguments: see `WeightSpaceLayer`; no scale is squared.
    """

    permutes_outer: ClassVar[bool]
    """Permute inputs and outputs as well as hidden neurons."""

    def add_terms(self) -> None:
        """See `WeightSpaceLayer`."""
        self.free, self.axes = free_axes(self.spec, self.permutes_outer), tensor_axes(self.spec)
        self.maps = list(tensor_maps(self.spec, self.free))
        d, e = self.in_channels, self.out_channels
        sizes = [self._fixed(tensor) for tensor in range(len(self.axes))]
        self.Phi = nn.ParameterList(torch.empty(e * sizes[m.target], d * sizes[m.source]) for m in self.maps)
        self.constants = nn.ParameterList(torch.empty(e * size) for size in sizes)
        free = [tuple(axis for axis in axes if axis in self.free) for axes in self.axes]
        layout = ProductLayout(tuple(free), tuple(d * size for size in sizes), tuple(e * size for size in sizes))
        place = {(m.target, m.source, m.kept): place for place, m in enumerate(self.maps)}
        kept: list[Axes] = [*((axis,) for axis in layout.axes), ()]
        self._layout, self._own = layout, [place[index, index, free[index]] for index in layout.pairs]
        self._blocks = [
            [[place[target, source, axes] for source in tensors] for target in tensors]
            for axes, tensors in zip(kept, (*layout.members, layout.order), strict=True)
        ]

    def fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`; all maps to one tensor share its fan-in."""
        for tensor_map, Phi in zip(self.maps, self.Phi, strict=True):
            share = sum(other.target == tensor_map.target for other in self.maps)
            yield Phi, Fan(Phi.shape[1] * share, Phi.shape[0])
        yield from ((constant, Fan(1, len(constant))) for constant in self.constants)

    def _fixed(self, tensor: int) -> int:
        """Return the product of the sizes of a tensor's axes that are not free."""
        return math.prod(self.spec.sizes[axis] for axis in self.axes[tensor] if axis not in self.free)

    def forward(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Map feed-forward weights of d channels to feed-forward weights of e channels.

        Maps between means that keep the same axes are one product: of all tensors' means side by side.

        Raises:
            SpecError: the weights have other sizes or channels than the layer.
        """
        self.check(weights)
        flat = [self._flat(tensor, index) for index, tensor in enumerate(weights.tensors())]
        results = permutation_product(self._layout, flat, self._matrices())
        results = [self._unflat(result, index) for index, result in enumerate(results)]
        return FeedForwardWeights(tuple(results[: self.spec.layers]), tuple(results[self.spec.layers :]))

    def _matrices(self) -> list[Tensor]:
        """Return the parameters as `permutation_product` takes them."""
        # An index into the lists themselves takes longer than the product.
        Phi, constants = ([*each.parameters(recurse=False)] for each in (self.Phi, self.constants))
        blocks = [torch.cat([torch.cat([Phi[place] for place in row], dim=1) for row in rows]) for rows in self._blocks]
        constant = torch.cat([constants[index] for index in self._layout.order])
        return [*(Phi[place] for place in self._own), *blocks, constant]

    def _flat(self, tensor: Tensor, index: int) -> Tensor:
        """Reshape [b, d, axes...] to [b, d times all other axes, free axes...]."""
        free = [2 + i for i, axis in enumerate(self.axes[index]) if axis in self.free]
        fixed = [2 + i for i, axis in enumerate(self.axes[index]) if axis not in self.free]
        return tensor.permute(0, 1, *fixed, *free).flatten(1, 1 + len(fixed)) if fixed else tensor

    def _unflat(self, tensor: Tensor, index: int) -> Tensor:
        """Reshape [b, e times all other axes, free axes...] to [b, e, axes...]."""
        fixed = [axis for axis in self.axes[index] if axis not in self.free]
        if not fixed:
            return tensor
        tensor = tensor.unflatten(1, (self.out_channels, *(self.spec.sizes[axis] for axis in fixed)))
        order = [*fixed, *self._layout.free[index]]
        return tensor.permute(0, 1, *(2 + order.index(axis) for axis in self.axes[index]))


class NPLinear(PermutationLinear):
    """NP layer from d to e channels: commutes with permuting inputs, outputs and hidden neurons.

    ```python
    classifier = zoo.weights(torch.arange(8)).classifier
    features = nfn.relu(nfn.NPLinear(classifier.spec, 1, 4)(classifier))
    numbers = nfn.NPPooling(classifier.spec, 4)(features)  # [8, numbers]
    ```
    """

    symmetry, permutes_outer = ALL, True


class HNPLinear(PermutationLinear):
    """HNP layer from d to e channels: commutes with permuting hidden neurons.

    ```python
    classifier = zoo.weights(torch.arange(8)).classifier
    features = nfn.relu(nfn.HNPLinear(classifier.spec, 1, 4)(classifier))
    numbers = nfn.HNPPooling(classifier.spec, 4)(features)  # [8, numbers]
    ```
    """

    symmetry, permutes_outer = HIDDEN, False


class PermutationPooling(WeightSpaceModule[FeedForwardSpec]):
    """Base of `NPPooling` and `HNPPooling`: the mean of each tensor over its free axes, side by side [b, out_channels].

    Args:
        spec: sizes n_0, ..., n_L with L of at least 2.
        channels: d.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    permutes_outer: ClassVar[bool]
    """Pool over inputs and outputs as well as hidden neurons."""

    def __init__(self, spec: FeedForwardSpec, channels: int):
        free = free_axes(spec, self.permutes_outer)
        fixed = [[spec.sizes[axis] for axis in axes if axis not in free] for axes in tensor_axes(spec)]
        super().__init__(spec, channels, out_channels=channels * sum(map(math.prod, fixed)))
        self.free = free

    def forward(self, weights: FeedForwardWeights) -> Float[Tensor, "b out"]:
        """Map feed-forward weights of d channels to invariants [b, out_channels].

        Raises:
            SpecError: the weights have other sizes or channels than the pooling.
        """
        self.check(weights)
        pooled = []
        for tensor, axes in zip(weights.tensors(), tensor_axes(self.spec), strict=True):
            over = [2 + index for index, axis in enumerate(axes) if axis in self.free]
            pooled.append((tensor.mean(over) if over else tensor).flatten(1))
        return torch.cat(pooled, dim=1)


class NPPooling(PermutationPooling):
    """Pooling that no permutation of inputs, outputs and hidden neurons changes."""

    symmetry, permutes_outer = ALL, True


class HNPPooling(PermutationPooling):
    """Pooling that no permutation of hidden neurons changes."""

    symmetry, permutes_outer = HIDDEN, False
