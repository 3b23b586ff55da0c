"""NP and HNP layers and pooling for feed-forward networks (Zhou et al. 2023, arXiv 2302.14040).

Weights carry axes: W^(s) those of the layers s and s - 1, b^(s) that of layer s. Neurons of some layers may be
permuted, which are called free: of hidden layers alone (HNP), or of inputs and outputs too (NP). A linear map from one
tensor to another commutes with all these permutations where, of each free axis that both have, entries are either taken
one by one or by their mean over it; where the mean is taken over each free axis that the input alone has, and is
repeated along each that the output alone has; and where axes that are not free are mixed by any matrix. No tensor has
one axis twice, so these are all such maps. A layer is the sum of them over all pairs of tensors, and a constant.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nfn_transformer.layers.hnps import check_weights, require_hidden_layer
from nfn_transformer.layers.initialization import Fan, initialize_term
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec

Axes = tuple[int, ...]
"""Of a tensor after [b, d], the layers, counted from 0 for the inputs, whose neurons they are."""


def tensor_axes(spec: FeedForwardSpec) -> list[Axes]:
    """The axes of the weights W^(1), ..., W^(L), and then of the biases b^(1), ..., b^(L)."""
    layers = range(1, spec.layers + 1)
    return [*((s, s - 1) for s in layers), *((s,) for s in layers)]


def free_axes(spec: FeedForwardSpec, outer: bool) -> frozenset[int]:
    """Layers whose neurons may be permuted: the hidden ones, and with `outer` inputs and outputs too."""
    return frozenset(range(spec.layers + 1) if outer else range(1, spec.layers))


@dataclass(frozen=True)
class Term:
    """A map from the tensor `source` to the tensor `target`, numbers in the order of `tensor_axes`: `kept` are the free
    axes along which entries are taken one by one."""

    target: int
    source: int
    kept: Axes


def terms(spec: FeedForwardSpec, free: frozenset[int]) -> Iterator[Term]:
    """All maps that a layer is the sum of."""
    axes = tensor_axes(spec)
    for target, source in itertools.product(range(len(axes)), repeat=2):
        common = [axis for axis in axes[target] if axis in axes[source] and axis in free]
        for count in range(len(common) + 1):
            for kept in itertools.combinations(common, count):
                yield Term(target, source, kept)


class PermutationLayer(nn.Module):
    """Feed-forward weights of d channels to feed-forward weights of e channels, by every linear map that commutes with
    the permutations.

    Args:
        spec: sizes n_0, ..., n_L with L of at least 2.
        in_channels, out_channels: d and e.
        outer: whether inputs and outputs may be permuted too (NP), or hidden neurons alone (HNP).
        init_type: one of `layers.initialization.INIT_TYPES`, without the squares of the polynomial layers.
        generator: source of the initial parameters; PyTorch's own where None.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    def __init__(
        self,
        spec: FeedForwardSpec,
        in_channels: int,
        out_channels: int,
        outer: bool,
        init_type: str = "xavier_normal",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        require_hidden_layer(spec)
        self.spec, self.in_channels, self.out_channels = spec, in_channels, out_channels
        self.free, self.axes = free_axes(spec, outer), tensor_axes(spec)
        self.terms = list(terms(spec, self.free))
        self.Phi = nn.ParameterList(
            torch.empty(out_channels * self._fixed(term.target), in_channels * self._fixed(term.source))
            for term in self.terms
        )
        self.constants = nn.ParameterList(
            torch.empty(out_channels * self._fixed(target)) for target in range(len(self.axes))
        )
        shares = [sum(other.target == term.target for other in self.terms) for term in self.terms]
        for Phi, share in zip(self.Phi, shares, strict=True):
            initialize_term(Phi, Fan(Phi.shape[1] * share, Phi.shape[0]), init_type, generator)
        for constant in self.constants:
            initialize_term(constant, Fan(1, len(constant)), init_type, generator)

    def _fixed(self, tensor: int) -> int:
        """How many numbers the axes of a tensor have that are not free."""
        return math.prod(self.spec.sizes[axis] for axis in self.axes[tensor] if axis not in self.free)

    def _free(self, tensor: int) -> list[int]:
        return [axis for axis in self.axes[tensor] if axis in self.free]

    def forward(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Feed-forward weights of d channels to feed-forward weights of e channels.

        Raises:
            SpecError: the weights do not have the sizes or channels that the layer was built for.
        """
        check_weights(weights, self.spec, self.in_channels)
        seen = [self._flat(tensor, place) for place, tensor in enumerate(weights.tensors())]
        out = [0.0] * len(self.axes)
        for term, Phi in zip(self.terms, self.Phi, strict=True):
            free = self._free(term.source)
            over = [1 + place for place, axis in enumerate(free) if axis not in term.kept]
            kept = [axis for axis in free if axis in term.kept]
            pooled = seen[term.source].mean(over) if over else seen[term.source]  # [b, kept..., d fixed]
            mapped = nn.functional.linear(pooled, Phi)
            # Kept axes lie as in the source; both tensors name layers from the last to the first.
            for place, axis in enumerate(self._free(term.target)):
                if axis not in kept:
                    mapped = mapped.unsqueeze(1 + place)
            out[term.target] = out[term.target] + mapped
        found = [
            self._unflat(tensor + constant, place)
            for place, (tensor, constant) in enumerate(zip(out, self.constants, strict=True))
        ]
        return FeedForwardWeights(tuple(found[: self.spec.layers]), tuple(found[self.spec.layers :]))

    def _flat(self, tensor: Tensor, place: int) -> Tensor:
        """[b, d, axes...] to [b, free axes..., d times all others]."""
        free = [2 + i for i, axis in enumerate(self.axes[place]) if axis in self.free]
        fixed = [2 + i for i, axis in enumerate(self.axes[place]) if axis not in self.free]
        return tensor.permute(0, *free, 1, *fixed).flatten(1 + len(free))

    def _unflat(self, tensor: Tensor, place: int) -> Tensor:
        """[b, free axes..., e times all others] to [b, e, axes...]; where repeated, along the whole axis."""
        axes, sizes = self.axes[place], self.spec.sizes
        free = [axis for axis in axes if axis in self.free]
        fixed = [axis for axis in axes if axis not in self.free]
        tensor = tensor.expand(-1, *(sizes[axis] for axis in free), -1)
        tensor = tensor.unflatten(-1, (self.out_channels, *(sizes[axis] for axis in fixed)))
        order = [*free, "channels", *fixed]
        return tensor.permute(0, 1 + order.index("channels"), *(1 + order.index(axis) for axis in axes))


class PermutationPooling(nn.Module):
    """Feed-forward weights of d channels to numbers [b, features] that the permutations leave unchanged: the mean of
    each tensor over its free axes.

    Args:
        spec, outer: as of `PermutationLayer`.
        channels: d.
    """

    def __init__(self, spec: FeedForwardSpec, channels: int, outer: bool):
        super().__init__()
        require_hidden_layer(spec)
        self.spec, self.channels, self.free = spec, channels, free_axes(spec, outer)

    @property
    def features(self) -> int:
        """Numbers that come out per network."""
        fixed = [
            [n for axis, n in enumerate(self.spec.sizes) if axis in axes and axis not in self.free]
            for axes in tensor_axes(self.spec)
        ]
        return self.channels * sum(map(math.prod, fixed))

    def forward(self, weights: FeedForwardWeights) -> Tensor:
        """Feed-forward weights of d channels to invariants [b, features].

        Raises:
            SpecError: the weights do not have the sizes or channels that the pooling was built for.
        """
        check_weights(weights, self.spec, self.channels)
        pooled = []
        for tensor, axes in zip(weights.tensors(), tensor_axes(self.spec), strict=True):
            over = [2 + place for place, axis in enumerate(axes) if axis in self.free]
            pooled.append((tensor.mean(over) if over else tensor).flatten(1))
        return torch.cat(pooled, dim=1)
