"""Invariants of standard transformers: numbers that no element of their group changes (`groups.standard_transformer`).

Fixed synthetic inputs (`features.standard_probes`) go through the network as it is: its own norms, gains and biases.
The residual stream is looked at before and after each half block, and so is what the half block adds to it
(`features.residual_stream`). Invariants are a row for each block and one for the rest.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.features.propagation import (
    NamedNumbers,
    answer_invariants,
    neuron_invariants,
    prefixed,
    side_by_side,
)
from nfn_transformer.features.residual_stream import (
    attention_invariants,
    contribution_invariants,
    next_word_invariants,
    share_invariants,
    spectrum_invariants,
    stream_invariants,
)
from nfn_transformer.features.standard_probes import PROBE_FAMILIES, standard_probes
from nfn_transformer.groups.standard_form import reads_no_mean
from nfn_transformer.weights.containers import TensorTree
from nfn_transformer.weights.standard_containers import StandardTransformerWeights
from nfn_transformer.weights.standard_pass import HalfBlock, embed, half_blocks, outputs_of
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

# Networks are read together up to this count of numbers in their signals, and words' logits up to the other.
_NUMBERS_AT_ONCE, _LOGITS_AT_ONCE, _FEWEST_TEXTS = 1 << 25, 1 << 22, 4


@dataclass(frozen=True)
class StandardInvariants(TensorTree):
    """Invariants of b networks of L blocks."""

    blocks: Float[Tensor, "*n b L numbers"]
    """Invariants of each block."""
    rest: Float[Tensor, "*n b others"]
    """Invariants of the embedded inputs, the last stream and the answers, without telling classes apart."""


def standard_invariant_names(spec: StandardTransformerSpec) -> tuple[list[str], list[str]]:
    """Return the names of the invariants of a block, and of the rest."""
    block, rest = _names(spec.inputs == "words")
    families = PROBE_FAMILIES[spec.inputs]
    return [f"{family}.{name}" for family in families for name in block], [
        f"{family}.{name}" for family in families for name in rest
    ]


@lru_cache(maxsize=2)
def _names(of_words: bool) -> tuple[list[str], list[str]]:
    """Return the names of one family's invariants, of a block and of the rest: those of the smallest network."""
    from nfn_transformer.weights.standard_state_dicts import standard_shapes, standard_weights

    sizes: dict[str, Any] = dict.fromkeys(("width", "blocks", "heads", "groups", "key", "value", "hidden"), 1)
    inputs: dict[str, Any] = {"inputs": "words", "vocabulary": 1} if of_words else {"inputs": "stream"}
    spec = StandardTransformerSpec(**sizes, **inputs, positions="none", head_sizes=(1, 1))
    weights = standard_weights({key: torch.zeros(1, *shape) for key, shape in standard_shapes(spec).items()}, spec)
    blocks, rest = _named_invariants(next(iter(standard_probes(spec).values())), weights)
    return list(blocks[0]), list(rest)


@torch.no_grad()
def read_standard_invariants(weights: StandardTransformerWeights) -> StandardInvariants:
    """Return the invariants of b networks."""
    chunk = _networks_at_once(weights.spec)
    parts = [_read(weights[start : start + chunk]) for start in range(0, weights.batch, chunk)]
    return parts[0].map(lambda *tensors: torch.cat(tensors), *parts[1:])


def pooled_invariants(invariants: StandardInvariants) -> Float[Tensor, "b numbers"]:
    """Return the mean over the blocks, the first block, the last one, and the rest: as many for any depth."""
    blocks = invariants.blocks
    return torch.cat([blocks.mean(1), blocks[:, 0], blocks[:, -1], invariants.rest], dim=1)


def _networks_at_once(spec: StandardTransformerSpec) -> int:
    inputs = next(iter(standard_probes(spec).values()))
    tokens = inputs.shape[1] if spec.inputs != "patches" else inputs[0, 0].numel() // (spec.patch[0] * spec.patch[1])
    tokens += spec.prefix_tokens
    of_token = 6 * spec.width + 3 * spec.hidden + spec.heads * (4 * tokens + 3 * spec.value)
    return max(1, _NUMBERS_AT_ONCE // (len(inputs) * tokens * of_token))


def _read(weights: StandardTransformerWeights) -> StandardInvariants:
    """Return the invariants of as many networks as fit at once."""
    blocks, rest = [], []
    like = weights.blocks[0].b_O
    for family in standard_probes(weights.spec).values():
        inputs = family.to(like.device, like.dtype if family.is_floating_point() else family.dtype)
        of_blocks, of_rest = _named_invariants(inputs, weights)
        blocks.append(torch.stack([side_by_side(named) for named in of_blocks], dim=1))
        rest.append(side_by_side(of_rest))
    return StandardInvariants(torch.cat(blocks, dim=2), torch.cat(rest, dim=1))


def _named_invariants(inputs: Tensor, weights: StandardTransformerWeights) -> tuple[list[NamedNumbers], NamedNumbers]:
    """Return the invariants of each block and of the rest for one family of inputs."""
    spec, centred = weights.spec, reads_no_mean(weights.spec)
    stream = embed(inputs, weights)
    rest, blocks = prefixed("entering", stream_invariants(stream, centred)), list[NamedNumbers]()
    for half in half_blocks(stream, weights):
        stream, named = half.after, half_block_invariants(half, spec)
        if half.is_attention:
            blocks.append(named)
        else:
            blocks[-1] |= named
    return blocks, {**rest, **_answers(inputs, stream, weights)}


def half_block_invariants(half: HalfBlock, spec: StandardTransformerSpec) -> NamedNumbers:
    """Return the invariants of a half block at work."""
    name = "attention" if half.is_attention else "mlp"
    centred = reads_no_mean(spec)
    is_added_centred = centred or (spec.norm == "layer" and spec.placement == "post")
    added = half.contribution - half.contribution.mean(-1, keepdim=True) if is_added_centred else half.contribution
    before = half.before - half.before.mean(-1, keepdim=True) if centred else half.before
    if half.rows is not None:
        own = {**attention_invariants(half.rows, spec.causal), **share_invariants("head", _head_powers(half, spec))}
    else:
        assert half.pre_activations is not None
        assert half.activity is not None
        writes = half.block.W_2 - half.block.W_2.mean(-1, keepdim=True) if is_added_centred else half.block.W_2
        power = half.activity.square().mean((1, 2)) * writes.square().sum(-1)  # [b, hidden]
        own = {**neuron_invariants(half.pre_activations.flatten(1, 2)), **share_invariants("neuron", power)}
    return {
        **prefixed(name, own),
        **prefixed(f"{name}_adds", contribution_invariants(added, before)),
        **prefixed(f"after_{name}", stream_invariants(half.after, centred)),
    }


def _head_powers(half: HalfBlock, spec: StandardTransformerSpec) -> Float[Tensor, "b h"]:
    """Return the mean power of what each head adds to the stream, but for what it adds to every token alike.

    Rows of attention sum to 1. So shifts and biases of values add a constant, which might stand in b_O as well.
    """
    block, q = half.block, spec.heads // spec.groups
    assert half.rows is not None
    reads = half.reads - block.shift_1[:, None, None] if spec.placement == "pre" else half.reads
    values = torch.einsum("bntd,bgdk->bngtk", reads, block.W_V).repeat_interleave(q, dim=2)
    mixed = half.rows @ values  # [b, n, h, t, D_v]
    is_centred = spec.norm == "layer" and (spec.placement == "post" or reads_no_mean(spec))
    writes = block.W_O - block.W_O.mean(-1, keepdim=True) if is_centred else block.W_O
    second_moment = torch.einsum("bnhtk,bnhtl->bhkl", mixed, mixed) / (mixed.shape[1] * mixed.shape[3])
    return (second_moment * (writes @ writes.transpose(2, 3))).sum((2, 3)).clamp(min=0)


def _answers(inputs: Tensor, stream: Float[Tensor, "b n t D"], weights: StandardTransformerWeights) -> NamedNumbers:
    """Return the invariants of the pooled stream and of the outputs."""
    spec, named = weights.spec, NamedNumbers()
    plain = weights
    if weights.final_gain is not None and spec.head_sizes:  # gains and shifts may stand in the head as well
        gain, shift = torch.ones_like(weights.final_gain), torch.zeros_like(weights.final_gain)
        plain = replace(weights, final_gain=gain, final_shift=shift)
    pooled = outputs_of(stream, replace(plain, head_weights=(), head_biases=()))
    pooled = pooled.mean(2) if spec.pooling == "none" else pooled
    named |= prefixed("pooled", spectrum_invariants(pooled))
    tokens, words = stream.shape[2], spec.head_sizes[-1] if spec.head_sizes else spec.width
    if spec.pooling == "none":
        stream = stream[:, : max(_FEWEST_TEXTS, _LOGITS_AT_ONCE // (tokens * words))]
    logits = outputs_of(stream, weights)
    if spec.inputs == "words":
        predicts = spec.pooling == "none" and logits.shape[-1] == spec.vocabulary and tokens > 2
        texts = inputs[: logits.shape[1]]
        # Other networks predict no words: the names are the same, the numbers are 0.
        zero = torch.zeros_like(logits[..., 0].flatten(1)[:, 0])
        named |= (
            next_word_invariants(logits[:, :, spec.prefix_tokens :], texts)
            if predicts
            else {"surprise": zero, "later_surprise": zero}
        )
    return {**named, **prefixed("answers", answer_invariants(logits.flatten(1, -2)))}
