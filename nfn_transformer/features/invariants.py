"""Invariants of whole networks: numbers that no element of the complete group changes (`groups.complete`).

Fixed synthetic signals go through the network's own layers, in a canonical form that is free of scales and shifts
(`features.propagation`). No image or text of the task is needed. Invariants are a row for each block and one for the
rest.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.features.probes import PROBES, TEXT_TOKENS, family_names, probe_tokens
from nfn_transformer.features.propagation import (
    NamedNumbers,
    block_invariants,
    classifier_invariants,
    normalize,
    prefixed,
    side_by_side,
    signal_invariants,
)
from nfn_transformer.resources import map_in_threads
from nfn_transformer.weights.containers import (
    BlockWeights,
    FeedForwardWeights,
    TensorTree,
    TransformerWeights,
    weight_shapes,
)
from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec, TransformerSpec

# Networks are read together up to this count of numbers in their signals. Those of a CPU's thread fit its caches.
_NUMBERS_AT_ONCE, _NUMBERS_OF_A_THREAD = 1 << 26, 1 << 23


@dataclass(frozen=True)
class Invariants(TensorTree):
    """Invariants of b networks of L blocks."""

    blocks: Float[Tensor, "*n b L numbers"]
    """Named by `block_invariant_names`."""
    rest: Float[Tensor, "*n b others"]
    """Named by `rest_invariant_names`."""


def invariant_names(spec: TransformerSpec) -> list[str]:
    """Return the names of all invariants of a network, block by block and then the rest, as trees read them."""
    blocks = [f"block{index}.{name}" for index in range(len(spec.blocks)) for name in block_invariant_names(spec)]
    return [*blocks, *rest_invariant_names(spec)]


def block_invariant_names(spec: TransformerSpec) -> list[str]:
    """Return the names of the invariants of each block of networks of a spec."""
    return [f"{family}.{name}" for family in family_names(spec) for name in _names()[0]]


def rest_invariant_names(spec: TransformerSpec) -> list[str]:
    """Return the names of the invariants that belong to no block, of networks of a spec."""
    return [f"{family}.{name}" for family in family_names(spec) for name in _names()[1]]


@lru_cache(maxsize=1)
def _names() -> tuple[list[str], list[str]]:
    """Return the names of one family's invariants, of a block and of the rest: those of the smallest network."""
    block, classifier = BlockSpec(1, 1, 1, 1, 1), FeedForwardSpec((1, 1, 1))
    one = {name: torch.zeros(1, 1, *shape) for name, shape in weight_shapes(block).items()}
    first, second, bias, last = (torch.zeros(1, 1, *shape) for shape in weight_shapes(classifier).values())
    network = TransformerWeights((BlockWeights(**one),), FeedForwardWeights((first, second), (bias, last)))
    blocks, rest = _named_invariants(torch.zeros(1, 1, 1, 1), network)
    return list(blocks[0]), list(rest)


def check_has_invariants(spec: TransformerSpec) -> None:
    """Raise SpecError unless networks have blocks, parts of one width D, and a classifier of two layers."""
    if spec.classifier.layers != 2 or not spec.blocks or len(set(spec.widths)) > 1:
        listed = ", ".join(map(str, spec.widths))
        raise SpecError(
            f"networks with {len(spec.blocks)} blocks, parts of width {listed} and a classifier of "
            f"{spec.classifier.layers} layers, expected blocks, all of one width and a classifier of two layers"
        )


def has_like_invariants(spec: TransformerSpec, other: TransformerSpec) -> bool:
    """Return if the invariants of networks of `other` mean the same as those of `spec`, for any number of blocks.

    They do if both have an embedding, or neither.
    """
    try:
        check_has_invariants(other)
    except SpecError:
        return False
    return (spec.embedding is None) == (other.embedding is None)


@torch.no_grad()
def read_invariants(weights: TransformerWeights) -> Invariants:
    """Return the invariants of b networks from their weights of one channel.

    ```python
    invariants = nfn.read_invariants(zoo.weights(torch.arange(8)))
    names = nfn.invariant_names(zoo.spec)
    ```

    Raises:
        SpecError: see `check_has_invariants`.
    """
    spec = weights.spec
    check_has_invariants(spec)
    numbers = _NUMBERS_OF_A_THREAD if weights.blocks[0].W_A.device.type == "cpu" else _NUMBERS_AT_ONCE
    chunk = _networks_at_once(spec, numbers)
    starts, most = range(0, weights.batch, chunk), _NUMBERS_AT_ONCE // numbers
    parts = map_in_threads(lambda start: _read(weights[start : start + chunk], spec), starts, most)
    return Invariants(torch.cat([part.blocks for part in parts]), torch.cat([part.rest for part in parts]))


def _networks_at_once(spec: TransformerSpec, numbers: int) -> int:
    tokens = TEXT_TOKENS if spec.embedding is None else spec.embedding.tokens
    largest = max(block.heads * (block.width + tokens) + block.hidden for block in spec.blocks)
    return max(1, numbers // (PROBES * tokens * largest * 4))


def _read(weights: TransformerWeights, spec: TransformerSpec) -> Invariants:
    """Return the invariants of as many networks as fit at once."""
    blocks, rest = [], []
    for tokens in probe_tokens(weights, spec):
        of_blocks, of_rest = _named_invariants(normalize(tokens), weights)
        blocks.append(torch.stack([side_by_side(named) for named in of_blocks], dim=1))
        rest.append(side_by_side(of_rest))
    return Invariants(torch.cat(blocks, dim=2), torch.cat(rest, dim=1))


def _named_invariants(
    signal: Float[Tensor, "_ n tokens D"], weights: TransformerWeights
) -> tuple[list[NamedNumbers], NamedNumbers]:
    """Return the invariants of each block and of the rest for one family's signal [b or 1, n, tokens, D]."""
    signal = signal.expand(weights.batch, *signal.shape[1:])
    entering, blocks = signal_invariants(signal), []
    for block in weights.blocks:
        signal, named = block_invariants(signal, block)
        blocks.append(named)
    answers = classifier_invariants(signal, weights.classifier)
    return blocks, {**prefixed("entering", entering), **prefixed("classifier", answers)}
