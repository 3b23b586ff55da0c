"""Maps from the weights of feed-forward networks to changed weights, which commute with their group.

A network is brought into its canonical form (`groups.network`). Layers that commute with permutations give a change of
it, and what the form multiplied is undone in the change. So permutations, signs and phases of the network change the
result alike, and positive scales too where the form removes them. The last layer starts at 0.01 of its size, so that
the first change is small (arXiv 2302.14040, section 4.2).
"""

import itertools
import math
from collections.abc import Iterable
from typing import ClassVar, cast

import torch
from torch import nn

from nfn_transformer.groups.network import CanonicalForm, canonical_form
from nfn_transformer.layers.base import relu
from nfn_transformer.layers.nft import LIFTED, NFTBlock, NFTEmbedding, fourier_lift
from nfn_transformer.layers.scaling import Reiterable, RootMeanSquares
from nfn_transformer.models.branch import example_weights
from nfn_transformer.models.registry import NetworkChannels
from nfn_transformer.models.weight_space_heads import HNPHead, HNPSHead, NFTHead, NPHead, StackHead
from nfn_transformer.weights.containers import FeedForwardWeights, NetworkWeights
from nfn_transformer.weights.spec import NetworkSpec

FIRST_CHANGE = 0.01
"""Size of the last layer's parameters at the start, as a share of that of their initialisation."""


class Editor(nn.Module):
    """Base of maps from the weights of b networks to changed weights.

    Args:
        spec: sizes and function of the networks.
        removes_scales, removes_signs: the canonical form is free of positive factors, and of signs.
    """

    needs_normalization = True
    """True if `fit_normalization` is to be called before the first epoch."""

    def __init__(self, spec: NetworkSpec, removes_scales: bool = False, removes_signs: bool = True):
        super().__init__()
        self.spec, self._removes_scales, self._removes_signs = spec, removes_scales, removes_signs
        self.sizes = RootMeanSquares(2 * spec.layers)

    def fit_normalization(self, seen: Iterable[NetworkWeights]) -> None:
        """Fit the size of each tensor of the canonical form to the training split's networks."""
        self.sizes.fit(Reiterable(lambda: (self.form(weights).weights.tensors() for weights in seen)))

    def form(self, weights: NetworkWeights) -> CanonicalForm:
        """Return the canonical form in which networks are read."""
        return canonical_form(weights, self._removes_scales, self._removes_signs)

    def change(self, weights: NetworkWeights) -> NetworkWeights:
        """Return the change of canonical weights, both in units of `sizes`."""
        raise NotImplementedError

    def forward(self, weights: NetworkWeights) -> NetworkWeights:
        """Return the changed weights of b networks."""
        form, units = self.form(weights), self.sizes().unbind()
        read, written = iter(units), iter(units)
        change = self.change(form.weights.map(lambda tensor: tensor / next(read)))
        return weights.map(torch.add, form.undo(change.map(lambda tensor: tensor * next(written))))


def to_networks(features: FeedForwardWeights, spec: NetworkSpec) -> NetworkWeights:
    """Return networks from what `NetworkWeights.features` gives of them."""
    weights = [
        weight[:, : math.prod(trailing)].movedim(1, 3).unflatten(3, trailing or (1,))
        for weight, trailing in zip(features.weights, spec.trailing, strict=True)
    ]
    flat = [weight if trailing else weight.squeeze(3) for weight, trailing in zip(weights, spec.trailing, strict=True)]
    return NetworkWeights(spec, tuple(flat), tuple(bias[:, 0] for bias in features.biases))


class StackEditor(Editor):
    """Editor by the layers of a `StackHead`, and one more."""

    head: ClassVar[type[StackHead]]
    """Branch whose layers are taken."""

    def __init__(self, spec: NetworkSpec, config: NetworkChannels):
        super().__init__(spec, self.head.removes_scales)
        last = self.head.layer(spec.feed_forward, config.network_channels[-1], spec.channels, config.init_type)
        self.layers, self.last = nn.ModuleList(self.head.build_layers(spec, config)), last
        shrink(last)

    def change(self, weights: NetworkWeights) -> NetworkWeights:
        """See `Editor`."""
        features = weights.features()
        if self.head.lifts_weights_of(self.spec):
            features = fourier_lift(features)
        for layer in self.layers:
            features = relu(layer(features))
        return to_networks(self.last(features), self.spec)


class NPEditor(StackEditor):
    """Editor of NP layers, with positions of inputs and outputs."""

    head = NPHead


class HNPEditor(StackEditor):
    """Editor of HNP layers."""

    head = HNPHead


class HNPSEditor(StackEditor):
    """Editor of HNPS layers, which commutes with positive scales too."""

    head = HNPSHead


class NFTEditor(Editor):
    """Editor of attention among neurons."""

    def __init__(self, spec: NetworkSpec, config: NetworkChannels):
        super().__init__(spec)
        sizes, channels = spec.feed_forward, config.network_channels
        self._lifts = NFTHead.lifts_weights_of(spec)
        blocks = [NFTBlock(sizes, channels[0]) for _ in channels]
        embedding = NFTEmbedding(sizes, LIFTED if self._lifts else spec.channels, channels[0])
        self.layers = nn.Sequential(embedding, *blocks)
        self.last = nn.ModuleList(nn.Linear(channels[0], spec.channels) for _ in range(2 * spec.layers))
        shrink(self.last)

    def change(self, weights: NetworkWeights) -> NetworkWeights:
        """See `Editor`."""
        maps = iter(self.last)
        features = weights.features()
        features = self.layers(fourier_lift(features) if self._lifts else features)
        changes = features.map(lambda tensor: next(maps)(tensor.movedim(1, -1)).movedim(-1, 1))
        return to_networks(changes, self.spec)


class MLPEditor(Editor):
    """Editor of flattened weights by Linear layers: the baseline, which commutes with nothing."""

    def __init__(self, spec: NetworkSpec, config: NetworkChannels):
        super().__init__(spec)
        counts = [tensor.numel() for tensor in cast(NetworkWeights, example_weights(spec)).tensors()]
        self.counts, widths = counts, (sum(counts), *config.network_channels)
        hidden = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.layers, self.last = nn.Sequential(*hidden), nn.Linear(widths[-1], sum(counts))
        shrink(self.last)

    def form(self, weights: NetworkWeights) -> CanonicalForm:
        """Return the networks as they are."""
        return CanonicalForm(weights, (), ())

    def change(self, weights: NetworkWeights) -> NetworkWeights:
        """See `Editor`."""
        numbers = torch.cat([tensor.flatten(1) for tensor in weights.tensors()], dim=1)
        changes = iter(self.last(self.layers(numbers)).split(self.counts, dim=1))
        return weights.map(lambda tensor: next(changes).view_as(tensor))


def shrink(layer: nn.Module) -> None:
    """Multiply a layer's parameters by FIRST_CHANGE."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(FIRST_CHANGE)
