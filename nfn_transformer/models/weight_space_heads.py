"""Classifier heads of layers between weight spaces: layers, ReLU, an invariant pooling, the published MLP head."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from nfn_transformer.layers.base import WeightSpaceModule, relu
from nfn_transformer.layers.hnps import HNPSLayer, HNPSPooling
from nfn_transformer.layers.magep import MAGEPLayer
from nfn_transformer.layers.nft import NFTBlock, NFTEmbedding
from nfn_transformer.layers.permutation import HNPLinear, HNPPooling, NPLinear, NPPooling
from nfn_transformer.layers.scaling import RootMeanSquares
from nfn_transformer.models.branch import Branch, readout_head
from nfn_transformer.models.registry import BranchConfig, ClassifierChannels
from nfn_transformer.weights.containers import FeedForwardWeights, TransformerWeights
from nfn_transformer.weights.spec import FeedForwardSpec, TransformerSpec


class WeightSpaceHead(Branch):
    """Head that maps a classifier's weights to [b, out], by layers between weight spaces and an invariant pooling.

    Args:
        layers: maps between feed-forward weights; the first reads one channel.
        pooling: from the last layer's weights to numbers [b, out_channels].
        config: width of the output, dropout and scales.
        activate: True if a ReLU follows each layer.
    """

    def __init__(
        self, layers: Sequence[nn.Module], pooling: WeightSpaceModule, config: BranchConfig, activate: bool = True
    ):
        super().__init__()
        self._activate = activate
        self.layers, self.pooling = nn.ModuleList(layers), pooling
        self.head = readout_head(pooling.out_channels, config.outputs, config.dropout)
        self.needs_normalization = config.standardize
        self.sizes = RootMeanSquares(2 * pooling.spec.layers) if config.standardize else None

    def featurize(self, weights: TransformerWeights) -> FeedForwardWeights:
        """Return the classifier's weights themselves."""
        return weights.classifier

    def fit_normalization(self, seen: Iterable[FeedForwardWeights]) -> None:
        """Fit the size of each tensor."""
        if self.sizes is not None:
            self.sizes.fit(weights.tensors() for weights in seen)

    def from_features(self, features: FeedForwardWeights, keys: Tensor | None = None) -> Tensor:
        """Map feed-forward weights of one channel to [b, out]."""
        weights = features
        if self.sizes is not None:
            sizes = iter(self.sizes().unbind())
            weights = weights.map(lambda tensor: tensor / next(sizes))
        for layer in self.layers:
            weights = relu(layer(weights)) if self._activate else layer(weights)
        return self.head(self.pooling(weights), keys)


class StackHead(WeightSpaceHead):
    """Head with a layer for each channel count, and the pooling of the group that the layers respect."""

    layer: ClassVar[Callable[..., nn.Module]]
    """Layer of networks of a spec from d to e channels, with an `init_type`."""
    invariant: ClassVar[Callable[..., WeightSpaceModule]]
    """Pooling of networks of a spec with so many channels."""

    def __init__(self, spec: TransformerSpec, config: ClassifierChannels):
        channels = config.classifier_nfn_channels
        sizes = zip((1, *channels[:-1]), channels, strict=True)
        layers = [self.layer(spec.classifier, d, e, config.init_type) for d, e in sizes]
        super().__init__(layers, self.build_pooling(spec.classifier, config), config)

    def build_pooling(self, spec: FeedForwardSpec, config: ClassifierChannels) -> WeightSpaceModule:
        """Return the pooling of the last layer's channels."""
        return self.invariant(spec, config.classifier_nfn_channels[-1])


class HNPHead(StackHead):
    """Head that respects permuting hidden neurons (HNP-NFN, arXiv 2302.14040)."""

    layer, invariant = HNPLinear, HNPPooling


class NPHead(StackHead):
    """Head that respects permuting inputs, hidden neurons and classes (NP-NFN, arXiv 2302.14040)."""

    layer, invariant = NPLinear, NPPooling


class HNPSHead(StackHead):
    """Head that respects permuting and scaling hidden neurons (Monomial-NFN, arXiv 2409.11697)."""

    layer = HNPSLayer

    def build_pooling(self, spec: FeedForwardSpec, config: ClassifierChannels) -> WeightSpaceModule:
        """Return the pooling, whose parameters have initial scales of their own."""
        return HNPSPooling(spec, config.classifier_nfn_channels[-1], init_type=config.init_type)


class MAGEPHead(StackHead):
    """Head of polynomials that respect permuting and scaling hidden neurons (MAGEP-NFN, arXiv 2410.04213)."""

    layer, invariant = MAGEPLayer, HNPSPooling


class NFTHead(WeightSpaceHead):
    """Head of attention among neurons, which respects permuting hidden ones (NFT, arXiv 2305.13546)."""

    def __init__(self, spec: TransformerSpec, config: ClassifierChannels):
        channels = config.classifier_nfn_channels
        blocks = [NFTBlock(spec.classifier, channels[0]) for _ in channels]
        layers = [NFTEmbedding(spec.classifier, 1, channels[0]), *blocks]
        super().__init__(layers, HNPPooling(spec.classifier, channels[0]), config, activate=False)
