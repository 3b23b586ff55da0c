"""Whole networks to numbers that no element of the complete group changes (`groups.complete`).

Fixed synthetic signals go through the network's own layers, in a canonical form that is free of scales and shifts
(`features.propagation`); no image or text of the task is needed. What becomes of them are invariants, a row for each
block and one for the rest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.features.probes import PROBES, TEXT_TOKENS, families, probe_tokens
from nfn_transformer.features.propagation import (
    BLOCK_INVARIANTS,
    CLASSIFIER_INVARIANTS,
    SIGNAL_INVARIANTS,
    block_invariants,
    classifier_invariants,
    normalised,
    signal_invariants,
)
from nfn_transformer.weights.containers import TensorTree, TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec

# As many networks are read at once as need so many numbers for their signals.
_NUMBERS_AT_ONCE = 1 << 26
# Invariants are of the order of 1, or logarithms.
_FARTHEST = 1e3


@dataclass(frozen=True)
class Invariants(TensorTree):
    """Of b networks: blocks [b, L, F BLOCK_INVARIANTS] and rest [b, F (SIGNAL_INVARIANTS + CLASSIFIER_INVARIANTS)],
    with F families of probes."""

    blocks: Tensor
    rest: Tensor


def invariants_of_block(spec: TransformerSpec) -> int:
    """How many numbers `read_invariants` gives for each block of networks of a spec."""
    return families(spec) * BLOCK_INVARIANTS


def invariants_of_rest(spec: TransformerSpec) -> int:
    """How many numbers `read_invariants` gives for what is not in the blocks of networks of a spec."""
    return families(spec) * (SIGNAL_INVARIANTS + CLASSIFIER_INVARIANTS)


def check_has_invariants(spec: TransformerSpec) -> None:
    """Raise SpecError where networks have no blocks, parts of several widths D, or a classifier that has not two
    layers."""
    if spec.classifier.layers != 2 or not spec.blocks or len(set(spec.widths)) > 1:
        listed = ", ".join(map(str, spec.widths))
        raise SpecError(
            f"networks with {len(spec.blocks)} blocks, parts of width {listed} and a classifier of "
            f"{spec.classifier.layers} layers, expected blocks, all of one width and a classifier of two layers"
        )


def has_like_invariants(spec: TransformerSpec, other: TransformerSpec) -> bool:
    """Whether networks of `other` have invariants that mean the same as those of `spec`, however many blocks they have:
    both have an embedding, or neither."""
    try:
        check_has_invariants(other)
    except SpecError:
        return False
    return (spec.embedding is None) == (other.embedding is None)


@torch.no_grad()
def read_invariants(weights: TransformerWeights) -> Invariants:
    """The invariants of b networks, weights of one channel.

    Raises:
        SpecError: see `check_has_invariants`.
    """
    spec = weights.spec
    check_has_invariants(spec)
    chunk = _networks_at_once(spec)
    parts = [_read(weights[start : start + chunk], spec) for start in range(0, weights.batch, chunk)]
    return Invariants(torch.cat([part.blocks for part in parts]), torch.cat([part.rest for part in parts]))


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
    return Invariants(torch.stack(blocks, dim=1), rest).map(_finite)


def _finite(numbers: Tensor) -> Tensor:
    """Weights may be finite and what they make of a signal may not: one such network must not spoil all scales."""
    return numbers.nan_to_num(nan=0.0).clamp(-_FARTHEST, _FARTHEST)
