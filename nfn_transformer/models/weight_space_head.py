"""Classifier heads of layers between weight spaces: layers, ReLU, an invariant pooling, the published MLP head."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from nfn_transformer.errors import UserError
from nfn_transformer.layers.base import WeightSpaceModule, relu
from nfn_transformer.layers.scaling import RootMeanSquares
from nfn_transformer.models.branch import Branch, BranchConfig, ClassifierChannels, readout_head
from nfn_transformer.weights.containers import FeedForwardWeights, TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec


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


def stack_of(
    layer: Callable[..., nn.Module],
    pooling: Callable[..., WeightSpaceModule],
    spec: TransformerSpec,
    config: ClassifierChannels,
) -> WeightSpaceHead:
    """Return a head with a layer for each channel count, and the pooling of the group that the layers respect."""
    channels = config.classifier_nfn_channels
    sizes = zip((1, *channels[:-1]), channels, strict=True)
    layers = [layer(spec.classifier, d, e, config.init_type) for d, e in sizes]
    return WeightSpaceHead(layers, pooling(spec.classifier, channels[-1]), config)


def refuse_reference_init(mode: str, config: ClassifierChannels, spec: TransformerSpec, zoo: str) -> None:
    """Raise UserError for layers that the reference implementation does not have, and so no scales for."""
    if config.init_type == "reference":
        what = f"--cls_mode {mode}, which the reference implementation does not have"
        raise UserError(f"--init_type reference: cannot be combined with {what}")
