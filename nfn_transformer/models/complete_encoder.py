"""An encoder for the whole network that no element of the complete group changes (`weights.complete_group`).

Fixed synthetic signals go through the network's own layers, in a canonical form that is free of scales and shifts
(`layers.propagation`); no image or text of the task is needed. What becomes of them are invariants, a row for each
block and one for the rest. All blocks share one map; its results are pooled over depth and read out. So the number of
parameters depends on none of the networks' sizes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nfn_transformer.errors import SpecError
from nfn_transformer.layers.propagation import (
    BLOCK_INVARIANTS,
    CLASSIFIER_INVARIANTS,
    SIGNAL_INVARIANTS,
    block_invariants,
    classifier_invariants,
    normalised,
    signal_invariants,
)
from nfn_transformer.networks.probes import PROBES, TEXT_TOKENS, families, probe_tokens
from nfn_transformer.weights.containers import TensorFields, TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec

WIDTH = 64
"""Of all hidden layers."""

# As many networks are read at once as need so many numbers for their signals.
_NUMBERS_AT_ONCE = 1 << 26
# Standardised numbers beyond this many deviations count as so many: a network unlike all that were seen stays readable.
_FARTHEST = 4.0
# Invariants are of the order of 1: what differs less is the same in all networks but for rounding.
_LEAST_DEVIATION = 0.01


@dataclass(frozen=True)
class Invariants(TensorFields):
    """Of b networks: blocks [b, L, F BLOCK_INVARIANTS] and rest [b, F (SIGNAL_INVARIANTS + CLASSIFIER_INVARIANTS)],
    with F families of probes."""

    blocks: Tensor
    rest: Tensor


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
        if spec.classifier.layers != 2 or not spec.blocks or len({block.width for block in spec.blocks}) > 1:
            raise SpecError("the complete encoder needs blocks of one width and a classifier of two layers")
        self.spec = spec
        count = families(spec)
        block, rest = count * BLOCK_INVARIANTS, count * (SIGNAL_INVARIANTS + CLASSIFIER_INVARIANTS)
        self.block_scale, self.rest_scale = Standardised(block), Standardised(rest)
        self.block = nn.Linear(block, WIDTH)
        self.rest = nn.Linear(rest, WIDTH)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, outputs))

    @torch.no_grad()
    def read(self, weights: TransformerWeights) -> Invariants:
        """Invariants of b networks."""
        chunk = _networks_at_once(self.spec)
        parts = [_read(weights[start : start + chunk], self.spec) for start in range(0, weights.batch, chunk)]
        return Invariants(torch.cat([part.blocks for part in parts]), torch.cat([part.rest for part in parts]))

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


def _networks_at_once(spec: TransformerSpec) -> int:
    tokens = TEXT_TOKENS if spec.embedding is None else spec.embedding.tokens
    largest = max(block.heads * (block.width + tokens) + block.hidden for block in spec.blocks)
    return max(1, _NUMBERS_AT_ONCE // (PROBES * tokens * largest * 4))


def _read(weights: TransformerWeights, spec: TransformerSpec) -> Invariants:
    found = [_of_family(normalised(tokens), weights) for tokens in probe_tokens(weights, spec)]
    return Invariants(
        torch.cat([family.blocks for family in found], dim=2), torch.cat([family.rest for family in found], dim=1)
    )


def _of_family(signal: Tensor, weights: TransformerWeights) -> Invariants:
    signal = signal.expand(weights.batch, *signal.shape[1:])
    entering, blocks = signal_invariants(signal), []
    for block in weights.blocks:
        signal, numbers = block_invariants(signal, block)
        blocks.append(numbers)
    rest = torch.cat([entering, classifier_invariants(signal, weights.classifier)], dim=1)
    return Invariants(torch.stack(blocks, dim=1), rest)
