"""Canonical form of standard transformers: weights of the same function on which the whole group acts.

    norms before what reads    LN(x) g + s, then W and b, is LN(x), then diag(g) W and b + s W. So gains become 1 and
                               shifts 0: of pre-norms, the final norm, the norm on patches, that before a head's last
                               layer. A head that is tied to the words is untied.
    embedding norm             With pre-norms its gain becomes the matrix diag(g): what it writes can then be turned.
    key biases                 0 without rotary positions: they add to all scores of a query alike.
    value biases               0: a row of attention sums to 1, so that b_O takes b_V W_O.
    means                      A LayerNorm subtracts the mean over D. So the mean of what writes before one is 0, and
                               the mean over the inputs of what reads behind one.
    positions                  Constant ones become learned ones of the same values.

Norms of a post-norm stand in the stream, and keep gains and shifts. All of this is exact and needs no data.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nfn_transformer.weights.standard_containers import StandardBlockWeights, StandardTransformerWeights
from nfn_transformer.weights.standard_pass import token_positions
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

LONGEST_TEXT = 512
"""Rows of constant positions that become learned ones, for other inputs than images."""


def standard_canonical_spec(spec: StandardTransformerSpec) -> StandardTransformerSpec:
    """Return the spec of the canonical form of networks of a spec, with the network's own tensors as layout."""
    is_pre = spec.placement == "pre"
    gone = {"patch_gain", "patch_shift", "head_gain", "head_shift", "b_V"}
    gone |= {"gain_1", "shift_1", "gain_2", "shift_2"} if is_pre else set()
    gone |= {"final_gain", "final_shift"} if spec.head_sizes else set()
    gone |= set() if spec.positions == "rope" else {"b_K"}
    changed = {"b_Q", "b_K", "b_1", "b_G", "b_O", "b_E", "embedding_gain"}
    kept = {role for role in spec.absent if role not in changed and not role.startswith("head.")}
    rows = _constant_rows(spec)
    positions: dict[str, Any] = {}
    if rows:
        positions = {"positions": "learned", "position_rows": rows, "positions_on_prefix": False}
    return replace(
        spec,
        absent=tuple(sorted(gone | kept)),
        tied=False,
        embedding_mix=spec.embedding_norm and (is_pre or spec.embedding_mix),
        layout=(),
        **positions,
    )


def _constant_rows(spec: StandardTransformerSpec) -> int:
    """Return the count of constant positions that become learned ones: 0 for others, and for images of any size."""
    if not spec.positions.startswith("sinusoidal"):
        return 0
    if spec.inputs != "patches":
        return LONGEST_TEXT
    return spec.image[0] // spec.patch[0] * (spec.image[1] // spec.patch[1])


def reads_no_mean(spec: StandardTransformerSpec) -> bool:
    """Return whether LayerNorms alone read the stream, so that nothing notices its mean over D."""
    return spec.norm == "layer" and spec.placement == "pre" and spec.final_norm != "none"


def standard_canonical_form(weights: StandardTransformerWeights, scales: bool = False) -> StandardTransformerWeights:
    """Return weights of the same function whose norms, biases and means are those of the canonical form.

    Args:
        weights: of b networks.
        scales: also choose the scales of hidden neurons that are free: what a neuron reads and what it writes become
            equally long.
    """
    old, spec = weights.spec, standard_canonical_spec(weights.spec)
    blocks = tuple(canonical_block(block, old, scales) for block in weights.blocks)
    return replace(canonical_ends(weights), spec=spec, blocks=blocks)


def canonical_ends(weights: StandardTransformerWeights) -> StandardTransformerWeights:
    """Return the weights with a canonical embedding, final norm and head; blocks and spec stay."""
    write = _centred if reads_no_mean(weights.spec) else _same
    return _canonical_head(_canonical_embedding(weights, standard_canonical_spec(weights.spec), write))


def canonical_block(
    block: StandardBlockWeights, spec: StandardTransformerSpec, scales: bool = False
) -> StandardBlockWeights:
    """Return the canonical form of a block of networks of a spec; see `standard_canonical_form`."""
    write = _centred if reads_no_mean(spec) else _same
    W_O, b_O, W_2, b_2 = block.W_O, block.b_O, block.W_2, block.b_2
    (W_Q, b_Q), (W_K, b_K), (W_V, b_V) = ((block.W_Q, block.b_Q), (block.W_K, block.b_K), (block.W_V, block.b_V))
    (W_1, b_1), (W_G, b_G) = (block.W_1, block.b_1), (block.W_G, block.b_G)
    gains = block.gain_1, block.shift_1, block.gain_2, block.shift_2
    if spec.placement == "pre":
        gain, shift = block.gain_1[:, None], block.shift_1[:, None]
        W_Q, b_Q = _read(spec, gain, shift, W_Q, b_Q)
        W_K, b_K = _read(spec, gain, shift, W_K, b_K)
        W_V, b_V = _read(spec, gain, shift, W_V, b_V)
        W_1, b_1 = _read(spec, block.gain_2, block.shift_2, W_1, b_1)
        if W_G is not None and b_G is not None:
            W_G, b_G = _read(spec, block.gain_2, block.shift_2, W_G, b_G)
        one, zero = torch.ones_like(block.gain_1), torch.zeros_like(block.gain_1)
        gains = one, zero, one, zero
    elif spec.norm == "layer":
        write = _centred  # a norm follows the sum
    of_query = b_V.repeat_interleave(spec.heads // spec.groups, dim=1)  # [b, h, D_v]
    b_O = b_O + (of_query.flatten(1)[:, None] @ W_O.flatten(1, 2)).squeeze(1)
    b_K = b_K if spec.positions == "rope" else torch.zeros_like(b_K)
    written = (write(tensor) for tensor in (W_O, b_O, W_2, b_2))
    W_O, b_O, W_2, b_2 = written
    parts = (W_Q, b_Q, W_K, b_K, W_V, torch.zeros_like(b_V), W_O, b_O)
    form = StandardBlockWeights(*gains[:2], *parts, *gains[2:], W_1, b_1, W_2, b_2, W_G, b_G)
    return _balanced(form) if scales and (spec.gated or spec.activation == "relu") else form


def _read(spec: StandardTransformerSpec, gain: Tensor, shift: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return what reads a norm without gain and shift: [..., D, n] and [..., n], from gains and shifts [..., D]."""
    b = b + (shift[..., None, :] @ W).squeeze(-2)
    W = gain[..., None] * W
    return (W - W.mean(-2, keepdim=True) if spec.norm == "layer" else W), b


def _centred(tensor: Tensor) -> Tensor:
    return tensor - tensor.mean(-1, keepdim=True)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _balanced(block: StandardBlockWeights) -> StandardBlockWeights:
    """Return the block with what a neuron reads, its bias included, as long as what it writes."""
    reads = torch.cat([block.W_1, block.b_1[:, None]], dim=1).norm(dim=1)
    writes = block.W_2.norm(dim=2)
    lives = (reads > 0) & (writes > 0)
    c = torch.where(lives, writes / torch.where(lives, reads, 1.0), 1.0).sqrt()
    return replace(block, W_1=block.W_1 * c[:, None], b_1=block.b_1 * c, W_2=block.W_2 / c[..., None])


def _canonical_embedding(
    weights: StandardTransformerWeights, spec: StandardTransformerSpec, write: Callable[[Tensor], Tensor]
) -> StandardTransformerWeights:
    """Return the weights with a canonical embedding."""
    old, form, like = weights.spec, weights, weights.blocks[0].b_O
    if old.positions != spec.positions:
        sides = [image // patch for image, patch in zip(old.image, old.patch, strict=True) if patch] or [1, 0]
        rows, columns = sides if old.inputs == "patches" else (1, spec.position_rows)
        table = token_positions(old, rows, columns, like)
        form = replace(form, positions=table.expand(weights.batch, -1, -1))
    if form.W_E is not None:
        W_E, b_E = form.W_E, torch.zeros_like(like) if form.b_E is None else form.b_E
        if form.patch_gain is not None and form.patch_shift is not None:
            layer = replace(spec, norm="layer")
            W_E, b_E = _read(layer, form.patch_gain, form.patch_shift, W_E, b_E)
            ones, zeros = torch.ones_like(form.patch_gain), torch.zeros_like(form.patch_gain)
            form = replace(form, patch_gain=ones, patch_shift=zeros)
        form = replace(form, W_E=W_E, b_E=b_E)
    before = write  # of what stands before the embedding norm
    if form.embedding_gain is not None and form.embedding_shift is not None:
        before = _centred if old.norm == "layer" else _same
        gain, shift = form.embedding_gain, form.embedding_shift
        if spec.embedding_mix:
            gain = gain if gain.ndim == 3 else torch.diag_embed(gain)
            gain = write(gain - gain.mean(1, keepdim=True) if old.norm == "layer" else gain)
            shift = write(shift)
        form = replace(form, embedding_gain=gain, embedding_shift=shift)
    # Positions and prefix tokens of patches and vectors stand behind the norm, those of words before it.
    late = before if old.inputs in ("words", "stream") else write
    by_name = dict.fromkeys(("words", "token_types", "W_E", "b_E"), before) | dict.fromkeys(
        ("positions", "prefix"), late
    )
    tensors = {name: vars(form)[name] for name in by_name}
    written: dict[str, Any] = {name: by_name[name](x) for name, x in tensors.items() if x is not None}
    return replace(form, **written)


def _canonical_head(weights: StandardTransformerWeights) -> StandardTransformerWeights:
    """Return the weights with a canonical final norm and head."""
    spec, matrices, biases = weights.spec, list(weights.head_weights), list(weights.head_biases)
    if not matrices:
        return weights
    form = weights
    if form.final_gain is not None and form.final_shift is not None:
        matrices[0], biases[0] = _read(spec, form.final_gain, form.final_shift, matrices[0], biases[0])
        ones, zeros = torch.ones_like(form.final_gain), torch.zeros_like(form.final_shift)
        form = replace(form, final_gain=ones, final_shift=zeros)
    if form.head_gain is not None and form.head_shift is not None:
        layer = replace(spec, norm="layer")
        matrices[-1], biases[-1] = _read(layer, form.head_gain, form.head_shift, matrices[-1], biases[-1])
        form = replace(form, head_gain=torch.ones_like(form.head_gain), head_shift=torch.zeros_like(form.head_shift))
    return replace(form, head_weights=tuple(matrices), head_biases=tuple(biases))
