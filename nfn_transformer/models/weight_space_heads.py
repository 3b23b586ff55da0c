"""Branches of layers between weight spaces: layers, ReLU, an invariant pooling, an MLP head.

They read the classifier of a transformer, or a whole feed-forward network in its canonical form (`groups.network`).
There the published MLP head is replaced by a wider one. The form has no signs and phases left. Layers that are odd in
each neuron's sign are the alternative. Their means over neurons are all 0 at first, and they learn less.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from nfn_transformer.families.registry import AnySpec
from nfn_transformer.groups.network import canonical_form
from nfn_transformer.layers.base import WeightSpaceModule, relu
from nfn_transformer.layers.hnps import HNPSLayer, HNPSPooling
from nfn_transformer.layers.magep import MAGEPLayer
from nfn_transformer.layers.nft import LIFTED, NFTBlock, NFTEmbedding, fourier_lift
from nfn_transformer.layers.permutation import HNPLinear, HNPPooling, NPLinear, NPPooling
from nfn_transformer.layers.scaling import RootMeanSquares
from nfn_transformer.models.branch import Branch, network_head, readout_head
from nfn_transformer.models.registry import ClassifierChannels, NetworkChannels
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import FeedForwardWeights, NetworkWeights, TransformerWeights
from nfn_transformer.weights.spec import FeedForwardSpec, NetworkSpec, TransformerSpec, are_alike


class WeightSpaceHead(Branch):
    """Map of feed-forward weights to [b, out], by layers between weight spaces and an invariant pooling.

    Args:
        spec: of the networks.
        layers: maps between feed-forward weights; the first reads one channel, or those of `NetworkSpec.channels`.
        pooling: from the last layer's weights to numbers [b, out_channels].
        config: width of the output, dropout and scales.
        activate: True if a ReLU follows each layer.
    """

    lifts: ClassVar[bool] = False
    """True if weights of whole networks without kernels are lifted to waves, see `layers.nft.fourier_lift`."""
    removes_scales: ClassVar[bool] = False
    """True if features are free of positive factors of neurons: they are no features but rounding for the layers."""
    rescales: ClassVar[bool] = False
    """True if each layer's tensors of whole networks are divided by their initial sizes, then log(1 + x) is taken."""

    def __init__(
        self,
        spec: AnySpec,
        layers: Sequence[nn.Module],
        pooling: WeightSpaceModule,
        config: ClassifierChannels | NetworkChannels,
        activate: bool = True,
    ):
        super().__init__()
        self.spec, self._activate = spec, activate
        self.layers, self.pooling = nn.ModuleList(layers), pooling
        build_head = network_head if isinstance(spec, NetworkSpec) else readout_head
        self.head = build_head(pooling.out_channels, config.outputs, config.dropout)
        self.needs_normalization = config.standardize
        tensors = 2 * pooling.spec.layers
        self.sizes = RootMeanSquares(tensors) if config.standardize else None
        is_rescaled = config.standardize and self.rescales and isinstance(spec, NetworkSpec)
        self.layer_sizes = nn.ModuleList(RootMeanSquares(tensors) for _ in layers if is_rescaled)

    def featurize(self, weights: Weights) -> FeedForwardWeights:
        """Return the classifier's weights themselves, or the canonical form of a feed-forward network."""
        if isinstance(weights, TransformerWeights):
            return weights.classifier
        assert isinstance(weights, NetworkWeights), "entries name the families that their branches read"
        return canonical_form(weights, self.removes_scales).weights.features()

    @classmethod
    def lifts_weights_of(cls, spec: AnySpec) -> bool:
        """Return whether weights of networks of a spec are lifted."""
        return cls.lifts and isinstance(spec, NetworkSpec) and spec.channels == 1

    def supports(self, spec: AnySpec) -> bool:
        """Return whether feed-forward networks have the same sizes, with any activation."""
        return are_alike(self.spec, spec)

    def fit_normalization(self, seen: Iterable[FeedForwardWeights]) -> None:
        """Fit the size of each tensor, and of each layer's where they are divided by these as well."""
        if self.sizes is None:
            return
        self.sizes.fit(weights.tensors() for weights in seen)
        with torch.no_grad():
            for depth, sizes in enumerate(self.layer_sizes):
                layers = self.layers[: depth + 1]
                cast(RootMeanSquares, sizes).fit(self._through(layers, weights).tensors() for weights in seen)

    def from_features(self, features: FeedForwardWeights, keys: Tensor | None = None) -> Tensor:
        """Map feed-forward weights of one channel to [b, out]."""
        return self.head(self.pooling(self._through(self.layers, features)), keys)

    def _through(self, layers: nn.ModuleList, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Return what the first layers make of features; each layer's size is 1 until it is fitted."""
        if self.sizes is not None:
            weights = _divided(weights, self.sizes)
        if self.lifts_weights_of(self.spec):
            weights = fourier_lift(weights)
        for layer, sizes in itertools.zip_longest(layers, self.layer_sizes[: len(layers)]):
            weights = relu(layer(weights)) if self._activate else layer(weights)
            # Products of products of an unusual network would overflow. Its features are free of scales already.
            weights = weights if sizes is None else _divided(weights, sizes).map(torch.log1p)
        return weights


def _divided(weights: FeedForwardWeights, sizes: nn.Module) -> FeedForwardWeights:
    """Return the weights with each tensor divided by its size."""
    each = iter(sizes().unbind())
    return weights.map(lambda tensor: tensor / next(each))


class StackHead(WeightSpaceHead):
    """Branch with a layer for each channel count, and the pooling of the group that the layers respect."""

    layer: ClassVar[Callable[..., nn.Module]]
    """Layer of networks of a spec from d to e channels, with an `init_type`."""
    invariant: ClassVar[Callable[..., WeightSpaceModule]]
    """Pooling of networks of a spec with so many channels."""
    embeds: ClassVar[bool] = False
    """True if each number of a whole network is first embedded, with positions of inputs and outputs."""

    def __init__(self, spec: AnySpec, config: ClassifierChannels | NetworkChannels):
        sizes, channels = sizes_and_channels(spec, config)
        layers = self.build_layers(spec, config)
        super().__init__(spec, layers, self.build_pooling(sizes, channels[-1], config.init_type), config)

    @classmethod
    def build_layers(cls, spec: AnySpec, config: ClassifierChannels | NetworkChannels) -> list[nn.Module]:
        """Return the layers up to the pooling."""
        sizes, (first, *channels) = sizes_and_channels(spec, config)
        first = LIFTED if cls.lifts_weights_of(spec) else first
        layers: list[nn.Module] = []
        if cls.embeds and isinstance(spec, NetworkSpec):
            layers, first = [NFTEmbedding(sizes, first, channels[0])], channels[0]
        pairs = zip((first, *channels[:-1]), channels, strict=True)
        return [*layers, *(cls.layer(sizes, d, e, config.init_type) for d, e in pairs)]

    def build_pooling(self, spec: FeedForwardSpec, channels: int, init_type: str) -> WeightSpaceModule:
        """Return the pooling of the last layer's channels."""
        return self.invariant(spec, channels)


class HNPHead(StackHead):
    """Branch that respects permuting hidden neurons (HNP-NFN, arXiv 2302.14040)."""

    layer, invariant, lifts = HNPLinear, HNPPooling, True


class NPHead(StackHead):
    """Branch that respects permuting inputs, hidden neurons and classes (NP-NFN, arXiv 2302.14040).

    Of feed-forward networks, inputs and outputs are told apart by learned positions, as in the published code: what
    remains is permuting hidden neurons.
    """

    layer, invariant, embeds, lifts = NPLinear, NPPooling, True, True


class HNPSHead(StackHead):
    """Branch that respects permuting and scaling hidden neurons (Monomial-NFN, arXiv 2409.11697)."""

    layer, removes_scales = HNPSLayer, True

    def build_pooling(self, spec: FeedForwardSpec, channels: int, init_type: str) -> WeightSpaceModule:
        """Return the pooling, whose parameters have initial scales of their own."""
        return HNPSPooling(spec, channels, init_type=init_type)


class MAGEPHead(StackHead):
    """Branch of polynomials that respect permuting and scaling hidden neurons (MAGEP-NFN, arXiv 2410.04213)."""

    layer, invariant, removes_scales, rescales = MAGEPLayer, HNPSPooling, True, True


class NFTHead(WeightSpaceHead):
    """Branch of attention among neurons, which respects permuting hidden ones (NFT, arXiv 2305.13546)."""

    lifts = True

    def __init__(self, spec: AnySpec, config: ClassifierChannels | NetworkChannels):
        sizes, (first, *channels) = sizes_and_channels(spec, config)
        first = LIFTED if self.lifts_weights_of(spec) else first
        blocks = [NFTBlock(sizes, channels[0]) for _ in channels]
        layers = [NFTEmbedding(sizes, first, channels[0]), *blocks]
        super().__init__(spec, layers, HNPPooling(sizes, channels[0]), config, activate=False)


def sizes_and_channels(
    spec: AnySpec, config: ClassifierChannels | NetworkChannels
) -> tuple[FeedForwardSpec, tuple[int, ...]]:
    """Return the sizes of the part that is read, and the channels of its weights and after each layer."""
    if isinstance(spec, NetworkSpec):
        assert isinstance(config, NetworkChannels), "entries of feed-forward networks have this configuration"
        return spec.feed_forward, (spec.channels, *config.network_channels)
    assert isinstance(spec, TransformerSpec), "entries name the families that their branches read"
    assert isinstance(config, ClassifierChannels), "heads of transformers have this configuration"
    return spec.classifier, (1, *config.classifier_nfn_channels)
