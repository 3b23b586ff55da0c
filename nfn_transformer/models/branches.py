"""Branches of the predictor: each maps one part of a network's weights to numbers [b, out]."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nfn_transformer.baselines.flattening import Part, flatten
from nfn_transformer.baselines.weight_statistics import weight_statistics
from nfn_transformer.layers import equivariant, hnps
from nfn_transformer.layers.invariant import InvariantBlockLayer
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


class EquivariantEncoder(nn.Module):
    """Encoder blocks to numbers [b, out] that the group of every block leaves unchanged.

    Per block: for each channel count an equivariant layer and ReLU, then the invariant layer and a
    LayerNorm; the blocks' numbers are concatenated, normalised and read out (arXiv 2410.04209, section 6).
    """

    def __init__(self, blocks: tuple[BlockSpec, ...], channels: tuple[int, ...], outputs: int, init_type: str):
        super().__init__()
        sizes = list(zip((1, *channels[:-1]), channels, strict=True))
        self.equivariant = nn.ModuleList(
            nn.ModuleList(equivariant.EquivariantBlockLayer(block, d, e, init_type) for d, e in sizes)
            for block in blocks
        )
        last = channels[-1]
        self.invariant = nn.ModuleList(InvariantBlockLayer(block, last, last, init_type) for block in blocks)
        self.block_norms = nn.ModuleList(nn.LayerNorm(last) for _ in blocks)
        self.norm = nn.LayerNorm(last * len(blocks))
        self.head = readout_head(last * len(blocks), outputs)

    def forward(self, blocks: tuple[BlockWeights, ...]) -> Tensor:
        """Blocks of one channel to [b, out]."""
        parts = []
        for block, layers, invariant, norm in zip(
            blocks, self.equivariant, self.invariant, self.block_norms, strict=True
        ):
            for layer in layers:
                block = equivariant.relu(layer(block))
            parts.append(norm(invariant(block)))
        return self.head(self.norm(torch.cat(parts, dim=1)))


class HNPSBranch(nn.Module):
    """A feed-forward network's weights to [b, out], invariant to permuting and scaling its hidden neurons."""

    def __init__(self, spec: FeedForwardSpec, channels: tuple[int, ...], outputs: int, init_type: str):
        super().__init__()
        sizes = list(zip((1, *channels[:-1]), channels, strict=True))
        self.layers = nn.ModuleList(hnps.HNPSLayer(spec, d, e, init_type) for d, e in sizes)
        self.pooling = hnps.HNPSPooling(spec, channels[-1])
        self.head = readout_head(self.pooling.features, outputs)

    def forward(self, parts: tuple[FeedForwardWeights]) -> Tensor:
        """A tuple of one feed-forward part with one channel to [b, out]."""
        (weights,) = parts
        for layer in self.layers:
            weights = hnps.relu(layer(weights))
        return self.head(self.pooling(weights))


class FeatureBranch(nn.Module):
    """Parts of the weights to [b, out]: fixed features, hidden Linear + ReLU layers, Linear + ReLU."""

    def __init__(
        self, features: Callable[[tuple[Part, ...]], Tensor], inputs: int, hidden: tuple[int, ...], outputs: int
    ):
        super().__init__()
        self.features = features
        sizes = (inputs, *hidden, outputs)
        layers = [(nn.Linear(n, m), nn.ReLU()) for n, m in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*(module for pair in layers for module in pair))

    def forward(self, parts: tuple[Part, ...]) -> Tensor:
        """Parts with one channel to [b, out]."""
        return self.layers(self.features(parts))


class LinearBranch(nn.Module):
    """Flattened parts to [b, out] by one Linear: the published embedding branch."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, parts: tuple[Part, ...]) -> Tensor:
        """Parts with one channel to [b, out]."""
        return self.linear(flatten(parts))


FEATURES = {"mlp": flatten, "statnn": weight_statistics}
