"""Branches of the predictor, their bases and the published ones: each maps a part of the weights to numbers [b, out].

A branch works in two steps. `featurize` makes features from the weights without parameters, once for a network.
`from_features` maps features to numbers, in every epoch. Calling a branch does both.

Dropout draws counter-based random numbers: hashes of network, epoch, layer and position. A run drops the same numbers
if it is resumed, shared among processes, computed in pieces or trained beside others. No random generator has to be
kept. A network is known by its index in the zoo.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nfn_transformer.families.registry import FAMILIES, AnySpec
from nfn_transformer.features.blocks import BlockFeatures, read_block
from nfn_transformer.features.statistics import STATISTICS_PER_TENSOR, weight_statistics
from nfn_transformer.hashing import GOLDEN, derive_keys, signed, splitmix64
from nfn_transformer.layers.polynomial import EquivariantBlockLayer, InvariantBlockLayer
from nfn_transformer.layers.scaling import RootMeanSquares, Standardize
from nfn_transformer.layers.stack import stack_invariants
from nfn_transformer.models.registry import BranchConfig, ClassifierChannels, EncoderChannels, NetworkChannels
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import Part, TransformerWeights, flatten, trained_tensors
from nfn_transformer.weights.spec import TransformerSpec, are_alike

if TYPE_CHECKING:
    from nfn_transformer.models.consensus import Consensus

HEAD_WIDTH, NETWORK_HEAD_WIDTH = 10, 64

_BITS, _LEAST = 31, -(1 << 63)

FeatureMap = Callable[[tuple[Part, ...]], Tensor]
"""Map from parts to numbers [b, inputs]."""


class Dropout(nn.Module):
    """Dropout of numbers [b, ...] in training (Srivastava et al. 2014): a share is zero, the others are enlarged.

    Args:
        probability: of being dropped, in [0, 1).

    Attributes:
        number: of this layer among the dropouts of a model, set by `SinglePredictor`.
    """

    golden: Tensor

    def __init__(self, probability: float):
        super().__init__()
        self.probability, self.number = probability, 0
        # A tensor: PyTorch's compiler would multiply a loop's counter by a plain number, and that must not overflow.
        self.register_buffer("golden", torch.tensor(signed(GOLDEN)), persistent=False)

    def forward(self, numbers: Float[Tensor, " b *n"], keys: Int64[Tensor, " b"] | None) -> Float[Tensor, " b *n"]:
        """Drop by random keys of the networks in this epoch; without keys drop nothing."""
        if keys is None or not self.training or not self.probability:
            return numbers
        count = numbers.shape[1:].numel()  # b may be 0: the last part of a batch is empty in some process
        positions = torch.arange(1, count + 1, device=numbers.device) * self.golden
        bits = splitmix64(derive_keys(keys, self.number)[:, None] + positions)
        # The highest bits as an unsigned number, compared as signed ones.
        kept = (bits ^ _LEAST) >= (round(self.probability * 2**_BITS) << (64 - _BITS)) + _LEAST
        return numbers * (kept.to(numbers.dtype) / (1 - self.probability)).view_as(numbers)

    def extra_repr(self) -> str:
        """Return the probability, as `print(module)` shows it."""
        return f"{self.probability}"


class Chain(nn.Sequential):
    """Sequence of modules that hands the keys to its dropouts."""

    def forward(
        self, numbers: Float[Tensor, " b *n"], keys: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b *m"]:
        """Map numbers through all modules."""
        for module in self:
            numbers = module(numbers, keys) if isinstance(module, Dropout) else module(numbers)
        return numbers


def dropouts(probability: float) -> list[Dropout]:
    """Return one dropout, or none if the probability is 0: keys of state dicts count the modules that exist."""
    return [Dropout(probability)] if probability else []


def readout_head(inputs: int, outputs: int, dropout: float = 0.0) -> Chain:
    """Return the published MLP head: Linear to 10, then twice LayerNorm, ReLU, dropout and Linear."""
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


def network_head(inputs: int, outputs: int, dropout: float = 0.0) -> Chain:
    """Return the MLP head of encoders of feed-forward networks: LayerNorm, Linear to 64, GELU, dropout, Linear."""
    hidden = nn.Linear(inputs, NETWORK_HEAD_WIDTH)
    return Chain(nn.LayerNorm(inputs), hidden, nn.GELU(), *dropouts(dropout), nn.Linear(NETWORK_HEAD_WIDTH, outputs))


class Branch(nn.Module):
    """Base of the branches of a predictor."""

    is_slow_to_featurize = False
    """True if `featurize` takes long, so that features are better kept than made again."""
    needs_normalization = False
    """True if `fit_normalization` is to be called before the first epoch."""
    needs_consensus = False
    """True if `featurize` takes the networks' indices in the zoo besides, and `consensus` must be fitted before."""
    consensus: "Consensus | None"
    """None in all members of an ensemble but the first, which reads the networks for all."""

    def featurize(self, weights: Any):
        """Return the features of b networks, tensors [b, ...], from their weights with one channel."""
        raise NotImplementedError

    def supports(self, spec: Any) -> bool:
        """Return whether the branch reads networks of a spec other than its own."""
        return False

    def fit_normalization(self, seen: Iterable) -> None:
        """Fit the scales of inputs to the training split's features; `seen` is iterated several times."""

    def from_features(self, features, keys: Tensor | None = None) -> Tensor:
        """Map features of b networks to [b, out]; `Dropout` reads the keys."""
        raise NotImplementedError

    def forward(self, weights: Any) -> Tensor:
        """Map weights with one channel to [b, out]."""
        return self.from_features(self.featurize(weights))


class FlatBranch(Branch):
    """Base of branches that read numbers [b, inputs]; `scale` standardises them if the configuration says so.

    Args:
        groups: sizes of the groups of neighbouring inputs that share a scale, as `Standardize` takes them.
        config: choice of scales.
    """

    def __init__(self, groups: list[int], config: BranchConfig):
        super().__init__()
        self.needs_normalization = config.standardize
        self.scale = Standardize(groups, log_magnitudes=config.log_magnitudes) if config.standardize else nn.Identity()

    def fit_normalization(self, seen: Iterable[Tensor]) -> None:
        """Fit the scale of each group."""
        if isinstance(self.scale, Standardize):
            self.scale.fit(seen)


class PartBranch(FlatBranch):
    """Base of branches that read fixed features of one part of the networks.

    Args:
        spec: the networks' sizes.
        config: choice of scales.
        part: what is read: blocks, classifier or embedding, or a whole network.
    """

    features: FeatureMap
    """`flatten` or `weight_statistics`."""

    def __init__(self, spec: AnySpec, config: BranchConfig, part: str):
        tensors = [tensor for each in parts_of(example_weights(spec), part) for tensor in trained_tensors(each)]
        # Any order of a tensor's entries is as good as another; statistics have a meaning of their own.
        groups = [tensor[0].numel() for tensor in tensors]
        if self.features is weight_statistics:
            groups = [1] * (STATISTICS_PER_TENSOR * len(tensors))
        super().__init__(groups, config)
        self.inputs, self._part, self._spec = sum(groups), part, spec

    def featurize(self, weights: Weights) -> Tensor:
        """Return the features [b, inputs]."""
        return self.features(parts_of(weights, self._part))

    def supports(self, spec: AnySpec) -> bool:
        """Return whether feed-forward networks have the same sizes, with any activation."""
        return are_alike(self._spec, spec)


class FeatureBranch(PartBranch):
    """Branch that maps parts of the weights to [b, out]: fixed features, hidden Linear + ReLU layers, Linear + ReLU.

    Args:
        spec: the networks' sizes.
        config: part that is read, widths of the hidden layers and of the output, dropout and scales.
    """

    def __init__(self, spec: AnySpec, config: EncoderChannels | ClassifierChannels):
        if not isinstance(spec, TransformerSpec):
            part, hidden = "network", cast(NetworkChannels, config).network_channels
        elif isinstance(config, EncoderChannels):
            part, hidden = "blocks", config.transformers_nfn_channels
        else:
            part, hidden = "classifier", config.classifier_nfn_channels
        super().__init__(spec, config, part)
        *widths, last = itertools.pairwise((self.inputs, *hidden, config.outputs))
        layers = [(nn.Linear(n, m), nn.ReLU(), *dropouts(config.dropout)) for n, m in widths]
        self.layers = Chain(*itertools.chain(*layers), nn.Linear(*last), nn.ReLU())

    def from_features(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Map features [b, inputs] to [b, out]."""
        return self.layers(self.scale(features), keys)


class FlattenedBranch(FeatureBranch):
    """Branch that reads flattened weights."""

    features = staticmethod(flatten)


class StatisticsBranch(FeatureBranch):
    """Branch that reads seven statistics of each tensor."""

    features = staticmethod(weight_statistics)


class LinearBranch(PartBranch):
    """Branch that maps the flattened embedding to [b, out] by one Linear."""

    features = staticmethod(flatten)

    def __init__(self, spec: TransformerSpec, config: BranchConfig):
        super().__init__(spec, config, "embedding")
        self.linear = nn.Linear(self.inputs, config.outputs)

    def from_features(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Map flattened embeddings [b, inputs] to [b, out]."""
        return self.linear(self.scale(features))


class EquivariantEncoder(Branch):
    """Map from encoder blocks to numbers [b, out] that the group of every block leaves unchanged.

    Per block: for each channel count an equivariant layer and ReLU, then the invariant layer and a LayerNorm. The
    blocks' numbers are concatenated, normalised and read out (arXiv 2410.04209, section 6).
    """

    def __init__(self, spec: TransformerSpec, config: EncoderChannels):
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
        self.head = readout_head(last * len(blocks), config.outputs, config.dropout)
        self.needs_normalization = config.standardize
        self.sizes = nn.ModuleList(RootMeanSquares(6) for _ in blocks) if config.standardize else None

    def featurize(self, weights: TransformerWeights) -> tuple[BlockFeatures, ...]:
        """Return the features of the encoder blocks."""
        return tuple(read_block(block) for block in weights.blocks)

    def fit_normalization(self, seen: Iterable[tuple[BlockFeatures, ...]]) -> None:
        """Fit the size of each tensor of each block."""
        for index, sizes in enumerate(self.sizes or ()):
            cast(RootMeanSquares, sizes).fit(blocks[index].parts for blocks in seen)

    def from_features(self, features: tuple[BlockFeatures, ...], keys: Tensor | None = None) -> Tensor:
        """Map features of blocks to [b, out]."""
        if self.sizes is not None:
            features = tuple(block.divided(sizes()) for block, sizes in zip(features, self.sizes, strict=True))
        parts = []
        for block, layers, invariant, norm in zip(
            features, self.equivariant, self.invariant, self.block_norms, strict=True
        ):
            stack, last = cast(Sequence[EquivariantBlockLayer], layers), cast(InvariantBlockLayer, invariant)
            parts.append(norm(stack_invariants(stack, last, block)))
        return self.head(self.norm(torch.cat(parts, dim=1)), keys)


def parts_of(weights: Weights, part: str) -> tuple[Part, ...]:
    """Return the blocks, the classifier or the embedding of networks, or all of a network of another family."""
    if not isinstance(weights, TransformerWeights):
        return weights.trained_parts
    if part == "blocks":
        return weights.blocks
    if part == "classifier":
        return (weights.classifier,)
    assert weights.embedding is not None, "ModelConfig.check refuses networks without an embedding"
    return (weights.embedding,)


def example_weights(spec: AnySpec) -> Weights:
    """Return a network of zeros."""
    family = FAMILIES[spec.family]
    return family.weights({key: torch.zeros(1, *shape) for key, shape in family.shapes(spec).items()}, spec)
