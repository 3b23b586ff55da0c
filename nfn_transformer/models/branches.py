"""Branches of the predictor: each maps one part of a network's weights to numbers [b, out].

A branch works in two steps. `read` makes features from the weights by no parameter of its own, so that this is done
once for a network and not in every epoch; `from_features` maps features to numbers. Calling a branch does both.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nfn_transformer.baselines.flattening import Part, flatten
from nfn_transformer.baselines.weight_statistics import weight_statistics
from nfn_transformer.layers import hnps
from nfn_transformer.layers.equivariant import EquivariantBlockLayer
from nfn_transformer.layers.features import BlockFeatures, read_block
from nfn_transformer.layers.invariant import InvariantBlockLayer
from nfn_transformer.layers.stack import feature_invariants
from nfn_transformer.weights.containers import BlockWeights, FeedForwardWeights
from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec

HEAD_WIDTH = 10


def readout_head(inputs: int, outputs: int) -> nn.Sequential:
    """The published MLP head: Linear to 10, then twice LayerNorm, ReLU, Linear."""
    return nn.Sequential(
        nn.Linear(inputs, HEAD_WIDTH),
        nn.LayerNorm(HEAD_WIDTH),
        nn.ReLU(),
        nn.Linear(HEAD_WIDTH, HEAD_WIDTH),
        nn.LayerNorm(HEAD_WIDTH),
        nn.ReLU(),
        nn.Linear(HEAD_WIDTH, outputs),
    )


class Branch(nn.Module):
    """What all branches share: parts of the weights, tensors [b, 1, ...], to numbers [b, out]."""

    def forward(self, parts: tuple[Part, ...]) -> Tensor:
        """Parts with one channel to [b, out]."""
        return self.from_features(self.read(parts))


class EquivariantEncoder(Branch):
    """Encoder blocks to numbers [b, out] that the group of every block leaves unchanged.

    Per block: for each channel count an equivariant layer and ReLU, then the invariant layer and a
    LayerNorm; the blocks' numbers are concatenated, normalised and read out (arXiv 2410.04209, section 6).
    """

    def __init__(self, blocks: tuple[BlockSpec, ...], channels: tuple[int, ...], outputs: int, init_type: str):
        super().__init__()
        sizes = list(zip((1, *channels[:-1]), channels, strict=True))
        self.equivariant = nn.ModuleList(
            nn.ModuleList(EquivariantBlockLayer(block, d, e, init_type) for d, e in sizes) for block in blocks
        )
        last = channels[-1]
        self.invariant = nn.ModuleList(InvariantBlockLayer(block, last, last, init_type) for block in blocks)
        self.block_norms = nn.ModuleList(nn.LayerNorm(last) for _ in blocks)
        self.norm = nn.LayerNorm(last * len(blocks))
        self.head = readout_head(last * len(blocks), outputs)

    def read(self, blocks: tuple[BlockWeights, ...]) -> tuple[BlockFeatures, ...]:
        """Features of blocks of one channel."""
        return tuple(read_block(block) for block in blocks)

    def from_features(self, features: tuple[BlockFeatures, ...]) -> Tensor:
        """Features of blocks of one channel to [b, out]."""
        parts = [
            norm(feature_invariants(layers, invariant, block))
            for block, layers, invariant, norm in zip(
                features, self.equivariant, self.invariant, self.block_norms, strict=True
            )
        ]
        return self.head(self.norm(torch.cat(parts, dim=1)))


class HNPSBranch(Branch):
    """A feed-forward network's weights to [b, out], invariant to permuting and scaling its hidden neurons."""

    def __init__(self, spec: FeedForwardSpec, channels: tuple[int, ...], outputs: int, init_type: str):
        super().__init__()
        sizes = list(zip((1, *channels[:-1]), channels, strict=True))
        self.layers = nn.ModuleList(hnps.HNPSLayer(spec, d, e, init_type) for d, e in sizes)
        self.pooling = hnps.HNPSPooling(spec, channels[-1])
        self.head = readout_head(self.pooling.features, outputs)

    def read(self, parts: tuple[FeedForwardWeights]) -> FeedForwardWeights:
        """The weights themselves, of a tuple of one feed-forward part."""
        (weights,) = parts
        return weights

    def from_features(self, weights: FeedForwardWeights) -> Tensor:
        """Feed-forward weights of one channel to [b, out]."""
        for layer in self.layers:
            weights = hnps.relu(layer(weights))
        return self.head(self.pooling(weights))


class FeatureBranch(Branch):
    """Parts of the weights to [b, out]: fixed features, hidden Linear + ReLU layers, Linear + ReLU."""

    def __init__(
        self, features: Callable[[tuple[Part, ...]], Tensor], inputs: int, hidden: tuple[int, ...], outputs: int
    ):
        super().__init__()
        self.read = features
        sizes = (inputs, *hidden, outputs)
        layers = [(nn.Linear(n, m), nn.ReLU()) for n, m in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*(module for pair in layers for module in pair))

    def from_features(self, features: Tensor) -> Tensor:
        """Features [b, inputs] to [b, out]."""
        return self.layers(features)


class LinearBranch(Branch):
    """Flattened parts to [b, out] by one Linear: the published embedding branch."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def read(self, parts: tuple[Part, ...]) -> Tensor:
        """All trained numbers of the parts: [b, inputs]."""
        return flatten(parts)

    def from_features(self, flat: Tensor) -> Tensor:
        """Flattened parts [b, inputs] to [b, out]."""
        return self.linear(flat)


FEATURES = {"mlp": flatten, "statnn": weight_statistics}
