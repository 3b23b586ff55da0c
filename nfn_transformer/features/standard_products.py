"""Products of what writes into a residual stream and what reads from it, of the weights alone, without any signal.

An element of the group (`groups.standard_transformer`) turns what writes to W R and what reads to R^T W. So products
W_w W_r stay, virtual weights in Elhage et al. 2021 ("A mathematical framework for transformer circuits"). M and N stay
out of W_Q W_K^T and W_V W_O. Numbers are read from these products that treat heads, neurons and classes alike: sizes,
traces, effective ranks. What a part writes has the second moment C = W_w^T W_w, and what it reads A = W_r W_r^T. Then
tr(C A) is how much one part reads of what another writes: of the same block, the one before, embedding or head.

All is computed in the canonical form (`groups.standard_form`). With post-norms what reads is multiplied by the gain of
the norm before it.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.features.propagation import NamedNumbers, over_heads, side_by_side
from nfn_transformer.features.standard_invariants import StandardInvariants
from nfn_transformer.groups.standard_form import canonical_block, canonical_ends
from nfn_transformer.weights.standard_containers import StandardBlockWeights, StandardTransformerWeights
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

# Networks are read together up to this count of numbers in second moments and products.
_NUMBERS_AT_ONCE = 1 << 24
# Against a division by zero or its logarithm: all that is compared with it is of the order of 1.
_SMALL = 1e-6
READERS = ("queries", "keys", "values", "mlp")
"""Parts of a block that read the stream."""


@lru_cache(maxsize=1)
def standard_product_names() -> tuple[list[str], list[str]]:
    """Return the names of the numbers of a block, and of the rest."""
    from nfn_transformer.weights.standard_state_dicts import standard_shapes, standard_weights

    sizes: dict[str, Any] = dict.fromkeys(("width", "blocks", "heads", "groups", "key", "value", "hidden"), 1)
    spec = StandardTransformerSpec(**sizes, inputs="stream", positions="none", head_sizes=(1, 1))
    state = {key: torch.zeros(1, *shape) for key, shape in standard_shapes(spec).items()}
    blocks, rest = _named_products(standard_weights(state, spec))
    return list(blocks[0]), list(rest)


@torch.no_grad()
def read_standard_products(weights: StandardTransformerWeights) -> StandardInvariants:
    """Return the numbers of b networks: a row for each block and one for the rest."""
    spec, parts = weights.spec, []
    largest = spec.width * (16 * spec.width + 4 * spec.hidden + 8 * spec.heads * max(spec.key, spec.value))
    chunk = max(1, _NUMBERS_AT_ONCE // largest)
    for start in range(0, weights.batch, chunk):
        of_blocks, of_rest = _named_products(weights[start : start + chunk])
        blocks = torch.stack([side_by_side(named) for named in of_blocks], dim=1)
        parts.append(StandardInvariants(blocks, side_by_side(of_rest)))
    return parts[0].map(lambda *tensors: torch.cat(tensors), *parts[1:])


def _named_products(weights: StandardTransformerWeights) -> tuple[list[NamedNumbers], NamedNumbers]:
    """Return the numbers of each block and of the rest."""
    spec, ends = weights.spec, canonical_ends(weights)
    outer, rest = _outer_products(ends)
    blocks, before, gain = list[NamedNumbers](), dict[str, Tensor](), ends.embedding_gain
    for block in weights.blocks:
        form = canonical_block(block, spec, scales=True)
        readable = form
        if spec.placement == "post":
            readable = _behind_gains(form, gain, form.gain_1, spec)
            gain = form.gain_2
        moments = _moments(readable)
        named = {**_head_products(readable), **_neuron_products(readable, spec), **_moment_numbers(moments)}
        blocks.append({**named, **_overlaps(moments, before, outer)})
        before = moments
    return blocks, rest


def _behind_gains(
    block: StandardBlockWeights, of_attention: Tensor | None, of_mlp: Tensor, spec: StandardTransformerSpec
) -> StandardBlockWeights:
    """Return a block of a post-norm network that reads normalised streams: gains [b, D] stand in what reads."""

    def read(W: Tensor, gain: Tensor) -> Tensor:
        W = gain.view(len(gain), *(1 for _ in range(W.ndim - 3)), -1, 1) * W
        return W - W.mean(-2, keepdim=True) if spec.norm == "layer" else W

    form = replace(block, W_1=read(block.W_1, of_mlp), W_G=None if block.W_G is None else read(block.W_G, of_mlp))
    if of_attention is None or of_attention.ndim == 3:
        return form
    W_Q, W_K, W_V = (read(W, of_attention) for W in (block.W_Q, block.W_K, block.W_V))
    return replace(form, W_Q=W_Q, W_K=W_K, W_V=W_V)


def _moments(block: StandardBlockWeights) -> dict[str, Tensor]:
    """Return the second moments of what a block's parts read, by their names in READERS, and of what they write."""
    q = block.W_Q.shape[1] // block.W_K.shape[1]
    W_Q, W_K, W_V, W_O = block.W_Q, *(W.repeat_interleave(q, dim=1) for W in (block.W_K, block.W_V)), block.W_O
    reads = block.W_1 if block.W_G is None else block.W_G
    return {
        "queries": _sum_of_products(W_Q, W_K.transpose(2, 3) @ W_K) / W_Q.shape[-1],
        "keys": _sum_of_products(W_K, W_Q.transpose(2, 3) @ W_Q) / W_Q.shape[-1],
        "values": _sum_of_products(W_V, W_O @ W_O.transpose(2, 3)),
        "mlp": reads @ reads.transpose(1, 2),
        "attention_writes": _sum_of_products(W_O.transpose(2, 3), W_V.transpose(2, 3) @ W_V),
        "mlp_writes": block.W_2.transpose(1, 2) @ block.W_2,
    }


def _sum_of_products(W: Float[Tensor, "b h D d"], inner: Float[Tensor, "b h d d"]) -> Float[Tensor, "b D D"]:
    """Return the sum over heads of W inner W^T."""
    side = (W @ inner).transpose(1, 2).flatten(2)  # [b, D, h d]
    return side @ W.transpose(1, 2).flatten(2).transpose(1, 2)


def _head_products(block: StandardBlockWeights) -> NamedNumbers:
    """Return what the heads' products W_Q W_K^T and W_V W_O tell, as mean, least and most over the heads.

    Of both: size, effective rank, and traces of the product and of its square beside the size. Traces tell how far a
    head looks for what is alike, and how far it copies. Of queries: what their bias adds to scores.
    """
    q, width = block.W_Q.shape[1] // block.W_K.shape[1], block.W_Q.shape[2]
    W_Q, W_K, W_V, W_O = block.W_Q, *(W.repeat_interleave(q, dim=1) for W in (block.W_K, block.W_V)), block.W_O
    pairs = {"scores": (W_Q, W_K.transpose(2, 3) * W_Q.shape[-1] ** -0.5), "copies": (W_V, W_O)}
    named: NamedNumbers = {}
    for name, (left, right) in pairs.items():
        inner = (left.transpose(2, 3) @ left) @ (right @ right.transpose(2, 3))  # its traces are those of the product's
        square, fourth = _trace(inner), (inner * inner.transpose(2, 3)).sum((2, 3))
        small = right @ left  # [b, h, d, d]
        size = square.clamp(min=0).sqrt() + _SMALL
        named |= over_heads(f"{name}.log_size", torch.log(size / width**0.5))
        named |= over_heads(f"{name}.log_rank", torch.log(square.square() / (fourth + _SMALL**2) + _SMALL))
        named |= over_heads(f"{name}.trace", _trace(small) / size / left.shape[-1] ** 0.5)
        named |= over_heads(f"{name}.trace_of_square", (small * small.transpose(2, 3)).sum((2, 3)) / size.square())
    bias = (block.b_Q[:, :, None] @ pairs["scores"][1]).norm(dim=(2, 3))  # [b, h]
    return {**named, **over_heads("scores.log_bias", torch.log(bias + _SMALL))}


def _neuron_products(block: StandardBlockWeights, spec: StandardTransformerSpec) -> NamedNumbers:
    """Return what the neurons' own products tell: of what each reads and writes, and W_1 W_2 over all of them."""
    gate, b_G = (block.W_1, block.b_1) if block.W_G is None or block.b_G is None else (block.W_G, block.b_G)
    reads, writes = block.W_1.norm(dim=1) + _SMALL, block.W_2.norm(dim=2) + _SMALL  # [b, hidden]
    opens = gate.norm(dim=1) + _SMALL
    cosine = (block.W_1 * block.W_2.transpose(1, 2)).sum(1) / (reads * writes)
    size, bias = torch.log(reads * writes), b_G / opens
    # The scale of what a ReLU reads is free.
    scale = torch.zeros_like(size) if spec.activation == "relu" else torch.log(opens)
    of_neurons = {"log_size": size, "cosine": cosine, "bias": bias.clamp(-10, 10), "log_scale": scale}
    named: NamedNumbers = {}
    for name, numbers in of_neurons.items():
        named[f"neurons.{name}_mean"] = numbers.mean(1)
        named[f"neurons.{name}_deviation"] = numbers.std(1, correction=0)
    product = block.W_1 @ block.W_2  # [b, D, D]
    whole = product.norm(dim=(1, 2)) + _SMALL
    named["neurons.trace"] = _trace(product) / whole / spec.width**0.5
    named["neurons.trace_of_square"] = (product * product.transpose(1, 2)).sum((1, 2)) / whole.square()
    for name, written in (("attention", block.b_O), ("mlp", block.b_2)):
        named[f"{name}.log_bias"] = torch.log(written.norm(dim=1) / spec.width**0.5 + _SMALL)
    return named


def _moment_numbers(moments: Mapping[str, Float[Tensor, "b D D"]]) -> NamedNumbers:
    """Return size and effective rank of second moments, as logarithms."""
    named: NamedNumbers = {}
    for name, moment in moments.items():
        trace, width = _trace(moment), moment.shape[-1]
        named[f"{name}.log_size"] = torch.log(trace.clamp(min=0) / width + _SMALL**2) / 2
        rank = trace.square() / (moment.square().sum((1, 2)) + _SMALL**4)
        named[f"{name}.log_rank"] = torch.log(rank / width + _SMALL)
    return named


def _overlaps(moments: Mapping[str, Tensor], before: Mapping[str, Tensor], outer: Mapping[str, Tensor]) -> NamedNumbers:
    """Return how much a block's parts read of what others write, and how much the head reads of what they write.

    What there is none of, a block before the first one or positions, gives 0.
    """
    writers = {f"before.{name}": before.get(name) for name in ("attention_writes", "mlp_writes")}
    writers |= {name: outer.get(name) for name in ("embedding", "positions")}
    named = {
        f"{name}_to_{reader}": _overlap(moment, moments[reader])
        for name, moment in writers.items()
        for reader in READERS
    }
    named["attention_to_mlp"] = _overlap(moments["attention_writes"], moments["mlp"])
    for name in ("attention_writes", "mlp_writes"):
        named[f"{name}_to_head"] = _overlap(outer.get("head"), moments[name])
        named[f"{name}_and_embedding"] = _overlap(outer.get("embedding"), moments[name])
    return named


def _overlap(moment: Float[Tensor, "b D D"] | None, other: Float[Tensor, "b D D"]) -> Float[Tensor, " b"]:
    """Return log(D tr(C A) / (tr C tr A)): 0 where directions do not matter."""
    if moment is None:
        return other.new_zeros(len(other))
    product = _trace(moment) * _trace(other)
    lives = product > _SMALL**4
    ratio = moment.shape[-1] * (moment * other).sum((1, 2)) / torch.where(lives, product, 1.0)
    return torch.where(lives, torch.log(ratio.clamp(min=0) + 1e-3), 0.0)


def _outer_products(ends: StandardTransformerWeights) -> tuple[dict[str, Tensor], NamedNumbers]:
    """Return the second moments of embedding, positions and head, and their numbers.

    The head's layers are one product, which no exchange, factor or sign of its hidden neurons changes.
    """
    spec, width, outer = ends.spec, ends.spec.width, dict[str, Tensor]()
    late = spec.inputs in ("words", "stream")
    tables = {"embedding": (ends.words if ends.W_E is None else ends.W_E, True), "positions": (ends.positions, late)}
    for name, (table, is_before) in tables.items():
        if table is not None:
            written = _behind_embedding_norm(table, ends) if is_before else table
            outer[name] = written.transpose(1, 2) @ written / written.shape[1]
    like = ends.blocks[0].b_O
    columns = torch.zeros_like(like)[..., None]
    if ends.head_weights:
        columns = ends.head_weights[0]
        for W in ends.head_weights[1:]:
            columns = columns @ W
        outer["head"] = columns @ columns.transpose(1, 2) / columns.shape[2]
    nothing = like.new_zeros(len(like), width, width)
    named = _moment_numbers({name: outer.get(name, nothing) for name in ("embedding", "positions", "head")})
    for name in ("embedding", "positions"):
        named[f"{name}_to_head"] = _overlap(outer.get("head"), outer.get(name, nothing))
    sizes = torch.log(columns.norm(dim=1) + _SMALL)
    prefix = torch.zeros_like(like)[:, None] if ends.prefix is None else ends.prefix
    bias = ends.head_biases[-1] if ends.head_biases else torch.zeros_like(like)
    named |= {
        "classes.log_size_mean": sizes.mean(1),
        "classes.log_size_deviation": sizes.std(1, correction=0),
        "classes.log_bias": torch.log(bias.std(1, correction=0) + _SMALL),
        "prefix.log_size": torch.log(prefix.norm(dim=(1, 2)) + _SMALL),
    }
    return outer, named


def _behind_embedding_norm(table: Float[Tensor, "b rows D"], ends: StandardTransformerWeights) -> Tensor:
    gain = ends.embedding_gain
    if gain is None:
        return table
    return table @ gain if gain.ndim == 3 else table * gain[:, None]


def _trace(matrices: Float[Tensor, "*n d d"]) -> Float[Tensor, " *n"]:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
