"""Encoder of the whole network that is invariant to the complete group (`groups.complete`).

The encoder reads `features.invariants`, a row for each block and one for the rest. All blocks share one map, whose
results are pooled over depth and read out. The number of parameters depends on none of the networks' sizes.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from nfn_transformer.features.invariants import (
    Invariants,
    block_invariant_names,
    check_has_invariants,
    has_like_invariants,
    read_invariants,
    rest_invariant_names,
)
from nfn_transformer.features.network_invariants import NetworkInvariants
from nfn_transformer.features.standard_invariants import StandardInvariants
from nfn_transformer.layers.scaling import Reiterable, Standardize
from nfn_transformer.models.branch import Branch, Chain, Dropout, dropouts
from nfn_transformer.models.consensus import Consensus
from nfn_transformer.models.encoders.complete import CompleteConfig
from nfn_transformer.models.registry import BranchConfig
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec

_Invariants = TypeVar("_Invariants", Invariants, NetworkInvariants, StandardInvariants)

WIDTH = 64
"""Width of all hidden layers."""

# Invariants are of the order of 1; smaller deviations are rounding errors.
_LEAST_DEVIATION = 0.01


class InvariantsEncoder(Branch):
    """Base of encoders that map invariants to numbers [b, outputs]: one map for all layers, then their pooling.

    Args:
        layer: count of the invariants of a layer or block.
        rest: count of the others.
        config: number of outputs, and dropout of hidden numbers; dropout of inputs is half of that.
        consensus: whose numbers stand beside the others.
    """

    is_slow_to_featurize = True
    needs_normalization = True

    def __init__(self, layer: int, rest: int, config: BranchConfig, consensus: Consensus | None = None):
        super().__init__()
        dropout, rest = config.dropout, rest + (0 if consensus is None else consensus.count)
        self.block_scale = Standardize([1] * layer, _LEAST_DEVIATION)
        self.rest_scale = Standardize([1] * rest, _LEAST_DEVIATION)
        self.block = nn.Linear(layer, WIDTH)
        self.rest = nn.Linear(rest, WIDTH)
        self.block_dropout, self.rest_dropout = Dropout(dropout / 2), Dropout(dropout / 2)
        first, second = nn.Linear(4 * WIDTH, WIDTH), nn.Linear(WIDTH, config.outputs)
        self.head = Chain(nn.GELU(), *dropouts(dropout), first, nn.GELU(), *dropouts(dropout), second)
        self.consensus, self.needs_consensus = consensus, consensus is not None

    def with_agreement(self, invariants: _Invariants, weights: Weights, networks: Tensor | None) -> _Invariants:
        """Return the invariants of b networks with the numbers of the consensus among the others, where there is one.

        Indices of the networks are those of the zoo that the consensus is fitted to; None for networks outside of it.
        """
        if self.consensus is None:
            return invariants
        return replace(invariants, rest=torch.cat([invariants.rest, self.consensus(weights, networks)], dim=1))

    def fit_to(self, layers: Iterable[Tensor], rest: Iterable[Tensor]) -> None:
        """Fit the scales to layers [m, L, numbers] and the rest [m, others]; layers share a scale."""
        self.block_scale.fit(Reiterable(lambda: (part[_is_there(part)] for part in layers)))
        self.rest_scale.fit(rest)

    def pooled(self, layers: Tensor, rest: Tensor, keys: Tensor | None) -> Tensor:
        """Map layers [b, L, numbers] and the rest [b, others] to [b, outputs]; layers that are not there are NaN."""
        there = _is_there(layers)  # [b, L]
        seen = torch.where(there[..., None], layers, self.block_scale.mean)
        blocks = self.block(self.block_dropout(self.block_scale(seen), keys)) * there[..., None]  # [b, L, WIDTH]
        depth = there.sum(1)[:, None]
        last = blocks.gather(1, (depth[..., None] - 1).expand(-1, 1, WIDTH)).squeeze(1)
        others = self.rest(self.rest_dropout(self.rest_scale(rest), keys))
        return self.head(torch.cat([blocks.sum(1) / depth, blocks[:, 0], last, others], dim=1), keys)


class CompleteEncoder(InvariantsEncoder):
    """Map from whole networks to numbers [b, outputs] that the complete group leaves unchanged.

    Args:
        spec: sizes of the networks; shapes of parameters depend only on the presence of an embedding.
        config: see `InvariantsEncoder`.

    Raises:
        SpecError: the networks have no blocks, blocks of several widths, or a classifier without exactly two layers.
    """

    def __init__(self, spec: TransformerSpec, config: CompleteConfig):
        check_has_invariants(spec)
        counts = len(block_invariant_names(spec)), len(rest_invariant_names(spec))
        super().__init__(*counts, config, Consensus(spec) if config.consensus else None)
        self.spec = spec

    def featurize(self, weights: TransformerWeights, networks: Tensor | None = None) -> Invariants:
        """Return the invariants of b networks; with a consensus those of the answers include their agreement."""
        return self.with_agreement(read_invariants(weights), weights, networks)

    def supports(self, spec: TransformerSpec) -> bool:
        """Return whether networks of other sizes have an embedding exactly if those of the training split have one.

        With a consensus they answer the same inputs, too.
        """
        return has_like_invariants(self.spec, spec) and (self.consensus is None or self.consensus.supports(spec))

    def fit_normalization(self, seen: Iterable[Invariants]) -> None:
        """Fit the scales of all invariants to the training split; blocks share a scale."""
        parts = Reiterable(lambda: (part.blocks for part in seen)), Reiterable(lambda: (part.rest for part in seen))
        self.fit_to(*parts)

    def from_features(self, features: Invariants, keys: Tensor | None = None) -> Tensor:
        """Map invariants to [b, outputs]; blocks that a network does not have are NaN."""
        return self.pooled(features.blocks, features.rest, keys)


def _is_there(blocks: Tensor) -> Tensor:
    """Return a mask [b, L] of the blocks [b, L, ...] that the networks have; missing blocks are NaN."""
    return ~blocks[..., 0].isnan()
