"""Published encoder: equivariant layers on every block and an invariant one (arXiv 2410.04209, section 6)."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nfn_transformer.features.blocks import BlockFeatures, read_block
from nfn_transformer.layers.polynomial import EquivariantBlockLayer, InvariantBlockLayer
from nfn_transformer.layers.scaling import RootMeanSquares
from nfn_transformer.layers.stack import stack_invariants
from nfn_transformer.models.branch import Branch, readout_head
from nfn_transformer.models.registry import EncoderChannels
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec


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
