"""An encoder for the whole network that no element of the complete group changes (`weights.complete_group`).

It reads `layers.network_invariants`, a row for each block and one for the rest. All blocks share one map; its results
are pooled over depth and read out. So the number of parameters depends on none of the networks' sizes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nfn_transformer.layers.network_invariants import (
    Invariants,
    check_has_invariants,
    invariants_of_block,
    invariants_of_rest,
    read_invariants,
)
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec

WIDTH = 64
"""Of all hidden layers."""

# Standardised numbers beyond this many deviations count as so many: a network unlike all that were seen stays readable.
_FARTHEST = 4.0
# Invariants are of the order of 1: what differs less is the same in all networks but for rounding.
_LEAST_DEVIATION = 0.01


class Standardised(nn.Module):
    """Numbers [..., size] with mean 0 and deviation 1 over what `learn` has seen."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def learn(self, numbers: Tensor) -> None:
        """Take mean and deviation over numbers [m, size]; a deviation below 0.01 counts as so much."""
        numbers = numbers.double()
        self.mean.copy_(numbers.mean(0))
        self.deviation.copy_(numbers.std(0, correction=0).clamp(min=_LEAST_DEVIATION))

    def forward(self, numbers: Tensor) -> Tensor:
        """Standardised, and cut off at four deviations."""
        return ((numbers - self.mean) / self.deviation).clamp(-_FARTHEST, _FARTHEST)


class CompleteEncoder(nn.Module):
    """Whole networks to numbers [b, outputs] that the complete group leaves unchanged.

    Args:
        spec: whether the networks have an embedding; nothing else of it decides a shape of a parameter.
        outputs: how many numbers.

    Raises:
        SpecError: the networks have no blocks, blocks of several widths, or a classifier that has not two layers.
    """

    def __init__(self, spec: TransformerSpec, outputs: int):
        super().__init__()
        check_has_invariants(spec)
        self.spec = spec
        block, rest = invariants_of_block(spec), invariants_of_rest(spec)
        self.block_scale, self.rest_scale = Standardised(block), Standardised(rest)
        self.block = nn.Linear(block, WIDTH)
        self.rest = nn.Linear(rest, WIDTH)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, outputs))

    def read(self, weights: TransformerWeights) -> Invariants:
        """Invariants of b networks."""
        return read_invariants(weights, self.spec)

    def learn_scales(self, seen: Iterable[Invariants]) -> None:
        """Take the scales of all invariants from networks, the training split's; before the first epoch.

        Blocks share a scale, as they share all that follows.
        """
        seen = list(seen)
        self.block_scale.learn(torch.cat([part.blocks.flatten(0, 1) for part in seen]))
        self.rest_scale.learn(torch.cat([part.rest for part in seen]))

    def from_features(self, features: Invariants) -> Tensor:
        """Invariants to [b, outputs]."""
        blocks = self.block(self.block_scale(features.blocks))  # [b, L, WIDTH]
        rest = self.rest(self.rest_scale(features.rest))
        return self.head(torch.cat([blocks.mean(1), blocks[:, 0], blocks[:, -1], rest], dim=1))
