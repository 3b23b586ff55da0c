"""Branches of the predictor: each maps one part of a network's weights to numbers [b, out].

A branch works in two steps. `featurize` makes features from the weights without parameters, once for a network.
`from_features` maps features to numbers, in every epoch. Calling a branch does both.
"""

import itertools
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from nfn_transformer.features.blocks import BlockFeatures, read_block
from nfn_transformer.features.flat import Part, flatten, learned_tensors
from nfn_transformer.features.statistics import STATISTICS_PER_TENSOR, weight_statistics
from nfn_transformer.layers.base import relu
from nfn_transformer.layers.dropout import Chain, dropouts
from nfn_transformer.layers.hnps import HNPSLayer, HNPSPooling
from nfn_transformer.layers.magep import MAGEPLayer
from nfn_transformer.layers.nft import NFTBlock, NFTEmbedding
from nfn_transformer.layers.permutation import HNPLinear, HNPPooling, NPLinear, NPPooling
from nfn_transformer.layers.polynomial import EquivariantBlockLayer, InvariantBlockLayer
from nfn_transformer.layers.scaling import RootMeanSquares, Standardize
from nfn_transformer.layers.stack import stack_invariants
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.weights.containers import FeedForwardWeights, TransformerWeights
from nfn_transformer.weights.spec import FeedForwardSpec, TransformerSpec

HEAD_WIDTH = 10

Parts = Callable[[TransformerWeights], tuple[Part, ...]]
"""From networks' weights to those parts that a branch reads."""

FEATURES = {"mlp": flatten, "statnn": weight_statistics}
"""By a branch's mode, from parts to numbers [b, inputs]."""


def readout_head(inputs: int, outputs: int, dropout: float = 0.0) -> Chain:
    """The published MLP head: Linear to 10, then twice LayerNorm, ReLU, dropout where there is any, Linear."""
    return Chain(
        nn.Linear(inputs, HEAD_WIDTH),
        nn.LayerNorm(HEAD_WIDTH),
        nn.ReLU(),
        *dropouts(dropout),
        nn.Linear(HEAD_WIDTH, HEAD_WIDTH),
        nn.LayerNorm(HEAD_WIDTH),
        nn.ReLU(),
        *dropouts(dropout),
        nn.Linear(HEAD_WIDTH, outputs),
    )


class Branch(nn.Module):
    """What all branches share.

    Attributes: is_slow_to_featurize, whether `featurize` takes long, so that features are better kept than made again;
    needs_normalization, whether `fit_normalization` is to be called before the first epoch.
    """

    is_slow_to_featurize = False
    needs_normalization = False

    def featurize(self, weights: TransformerWeights):
        """Features of b networks, tensors [b, ...], from their weights with one channel."""
        raise NotImplementedError

    def supports(self, spec: TransformerSpec) -> bool:
        """Whether it reads networks of a spec that is not the one that it was made for."""
        return False

    def fit_normalization(self, seen: Iterable) -> None:
        """Take scales of inputs from the training split's features; `seen` is gone through several times."""

    def from_features(self, features, keys: Tensor | None = None) -> Tensor:
        """Features of b networks to [b, out]; see `layers.dropout` for the keys."""
        raise NotImplementedError

    def forward(self, weights: TransformerWeights) -> Tensor:
        """Weights with one channel to [b, out]."""
        return self.from_features(self.featurize(weights))


class EquivariantEncoder(Branch):
    """Encoder blocks to numbers [b, out] that the group of every block leaves unchanged.

    Per block: for each channel count an equivariant layer and ReLU, then the invariant layer and a
    LayerNorm; the blocks' numbers are concatenated, normalised and read out (arXiv 2410.04209, section 6).
    """

    def __init__(self, spec: TransformerSpec, config: ModelConfig):
        super().__init__()
        blocks, channels, init_type = spec.blocks, config.transformers_nfn_channels, config.init_type
        sizes = list(zip((1, *channels[:-1]), channels, strict=True))
        self.equivariant = nn.ModuleList(
            nn.ModuleList(EquivariantBlockLayer(block, d, e, init_type) for d, e in sizes) for block in blocks
        )
        last = channels[-1]
        self.invariant = nn.ModuleList(InvariantBlockLayer(block, last, last, init_type) for block in blocks)
        self.block_norms = nn.ModuleList(nn.LayerNorm(last) for _ in blocks)
        self.norm = nn.LayerNorm(last * len(blocks))
        self.head = readout_head(last * len(blocks), config.num_out_encoder, config.dropout)
        self.needs_normalization = config.standardize
        self.sizes = nn.ModuleList(RootMeanSquares(6) for _ in blocks) if config.standardize else None

    def featurize(self, weights: TransformerWeights) -> tuple[BlockFeatures, ...]:
        """Features of the encoder blocks."""
        return tuple(read_block(block) for block in weights.blocks)

    def fit_normalization(self, seen: Iterable[tuple[BlockFeatures, ...]]) -> None:
        """Take the size of each tensor of each block."""
        for place, sizes in enumerate(self.sizes):
            sizes.fit(blocks[place].parts for blocks in seen)

    def from_features(self, features: tuple[BlockFeatures, ...], keys: Tensor | None = None) -> Tensor:
        """Features of blocks to [b, out]."""
        if self.sizes is not None:
            features = tuple(block.divided(sizes()) for block, sizes in zip(features, self.sizes, strict=True))
        parts = [
            norm(stack_invariants(layers, invariant, block))
            for block, layers, invariant, norm in zip(
                features, self.equivariant, self.invariant, self.block_norms, strict=True
            )
        ]
        return self.head(self.norm(torch.cat(parts, dim=1)), keys)


_LINEAR = {
    "np": (NPLinear, NPPooling),
    "hnp": (HNPLinear, HNPPooling),
    "hnps": (HNPSLayer, HNPSPooling),
    "magep": (MAGEPLayer, HNPSPooling),
}


def _linear_layers(spec: FeedForwardSpec, config: ModelConfig) -> tuple[list[nn.Module], nn.Module]:
    """Layers d -> e of a mode, and the pooling of the group that they respect."""
    channels = config.classifier_nfn_channels
    sizes = list(zip((1, *channels[:-1]), channels, strict=True))
    layer, pooling = _LINEAR[config.cls_mode]
    return [layer(spec, d, e, config.init_type) for d, e in sizes], pooling(spec, channels[-1])


def _attention_layers(spec: FeedForwardSpec, config: ModelConfig) -> tuple[list[nn.Module], nn.Module]:
    """An embedding and a block for each channel count, all of one width, and their pooling."""
    width, *_ = config.classifier_nfn_channels
    blocks = [NFTBlock(spec, width) for _ in config.classifier_nfn_channels]
    return [NFTEmbedding(spec, 1, width), *blocks], HNPPooling(spec, width)


class FeedForwardBranch(Branch):
    """A classifier's weights to [b, out], by layers between weight spaces, ReLU, and a pooling that is invariant.

    Modes: hnps and magep, to permuting and scaling hidden neurons; hnp, to permuting them; np, to permuting inputs and
    classes as well; nft, attention without ReLU, to permuting hidden neurons.
    """

    def __init__(self, spec: TransformerSpec, config: ModelConfig):
        super().__init__()
        self._attends = config.cls_mode == "nft"
        layers, pooling = (_attention_layers if self._attends else _linear_layers)(spec.classifier, config)
        self.layers, self.pooling = nn.ModuleList(layers), pooling
        self.head = readout_head(self.pooling.out_channels, config.num_out_classify, config.dropout)
        self.needs_normalization = config.standardize
        self.sizes = RootMeanSquares(2 * spec.classifier.layers) if config.standardize else None

    def featurize(self, weights: TransformerWeights) -> FeedForwardWeights:
        """The classifier's weights themselves."""
        return weights.classifier

    def fit_normalization(self, seen: Iterable[FeedForwardWeights]) -> None:
        """Take the size of each tensor."""
        self.sizes.fit(weights.tensors() for weights in seen)

    def from_features(self, weights: FeedForwardWeights, keys: Tensor | None = None) -> Tensor:
        """Feed-forward weights of one channel to [b, out]."""
        if self.sizes is not None:
            sizes = iter(self.sizes().unbind())
            weights = weights.map(lambda tensor: tensor / next(sizes))
        for layer in self.layers:
            weights = layer(weights) if self._attends else relu(layer(weights))
        return self.head(self.pooling(weights), keys)


class FlatBranch(Branch):
    """What the branches share that read numbers [b, inputs].

    Args:
        numbers: from networks' weights to them.
        groups: of how many neighbouring inputs each is, that share their scale, as `Standardize` takes them.
        config: whether inputs are standardised, and whether by log-magnitudes.
    """

    def __init__(self, numbers: Callable[[TransformerWeights], Tensor], groups: list[int], config: ModelConfig):
        super().__init__()
        self._numbers = numbers
        self.needs_normalization = config.standardize
        self.scale = Standardize(groups, log_magnitudes=config.log_magnitudes) if config.standardize else None

    def featurize(self, weights: TransformerWeights) -> Tensor:
        """The numbers [b, inputs]."""
        return self._numbers(weights)

    def fit_normalization(self, seen: Iterable[Tensor]) -> None:
        """Take the scale of each group."""
        self.scale.fit(seen)

    def scaled(self, numbers: Tensor) -> Tensor:
        """Numbers [b, inputs] as the layers see them."""
        return numbers if self.scale is None else self.scale(numbers)


class FeatureBranch(FlatBranch):
    """Parts of the weights to [b, out]: fixed features, hidden Linear + ReLU layers, Linear + ReLU.

    Args:
        mode: statnn, statistics of each tensor, or mlp, flattened weights.
        parts: which parts.
        example: a network's weights, of any numbers.
        hidden, outputs: widths.
        config: dropout and scales.
    """

    def __init__(
        self,
        mode: str,
        parts: Parts,
        example: TransformerWeights,
        hidden: tuple[int, ...],
        outputs: int,
        config: ModelConfig,
    ):
        tensors = [tensor[0].numel() for part in parts(example) for tensor in learned_tensors(part)]
        # Any order of a tensor's entries is as good as another; statistics have a meaning of their own.
        groups = tensors if mode == "mlp" else [1] * (STATISTICS_PER_TENSOR * len(tensors))
        super().__init__(partial(_of_parts, FEATURES[mode], parts), groups, config)
        *widths, last = itertools.pairwise((sum(groups), *hidden, outputs))
        layers = [(nn.Linear(n, m), nn.ReLU(), *dropouts(config.dropout)) for n, m in widths]
        self.layers = Chain(*itertools.chain(*layers), nn.Linear(*last), nn.ReLU())

    def from_features(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Features [b, inputs] to [b, out]."""
        return self.layers(self.scaled(features), keys)


class LinearBranch(FlatBranch):
    """Flattened parts to [b, out] by one Linear: the published embedding branch; arguments as of `FeatureBranch`."""

    def __init__(self, parts: Parts, example: TransformerWeights, outputs: int, config: ModelConfig):
        groups = [tensor[0].numel() for part in parts(example) for tensor in learned_tensors(part)]
        super().__init__(partial(_of_parts, flatten, parts), groups, config)
        self.linear = nn.Linear(sum(groups), outputs)

    def from_features(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Flattened parts [b, inputs] to [b, out]."""
        return self.linear(self.scaled(features))


def _of_parts(features: Callable[[tuple[Part, ...]], Tensor], parts: Parts, weights: TransformerWeights) -> Tensor:
    return features(parts(weights))


def of_embedding(weights: TransformerWeights) -> tuple[Part, ...]:
    """The part that an embedding branch reads."""
    return (weights.embedding,)


def of_blocks(weights: TransformerWeights) -> tuple[Part, ...]:
    """The parts that an encoder branch reads."""
    return weights.blocks


def of_classifier(weights: TransformerWeights) -> tuple[Part, ...]:
    """The part that a classifier branch reads."""
    return (weights.classifier,)
