"""Forward pass of standard transformers, for b networks at once, as plain functions of their weights.

Streams are [b, n, t, D] for n inputs of t tokens. `half_blocks` yields each half block, attention or MLP, with the
stream before and after it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.forward import patches, positional_encoding
from nfn_transformer.weights.standard_containers import StandardBlockWeights, StandardTransformerWeights
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda numbers: functional.gelu(numbers, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "none": lambda numbers: numbers,
}


def apply_activation(name: str, numbers: Tensor) -> Tensor:
    """Return an activation of numbers, one of `standard_spec.HEAD_ACTIVATIONS`."""
    return _ACTIVATIONS[name](numbers)


def affine(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x W + b: [b or 1, ..., inputs] by [b, inputs, outputs] and [b, outputs] to [b, ..., outputs]."""
    middle = x.shape[1:-1]
    flat = x.reshape(len(x), -1, x.shape[-1]).expand(len(W), -1, -1)
    result = torch.bmm(flat, W) if b is None else torch.baddbmm(b[:, None], flat, W)
    return result.unflatten(1, middle)


def apply_norm(x: Tensor, spec: StandardTransformerSpec, gain: Tensor, shift: Tensor, kind: str = "") -> Tensor:
    """Return the norm of x [b, ..., D] with gains and shifts [b, D].

    Args:
        x: the numbers.
        spec: tells the norm and its epsilon.
        gain: [b, D]; a matrix [b, D, D] mixes the normalised numbers.
        shift: [b, D].
        kind: `layer` or `rms`; empty: the spec's.
    """
    if (kind or spec.norm) == "layer":
        x = functional.layer_norm(x, x.shape[-1:], eps=spec.epsilon)
    else:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + spec.epsilon)
    if gain.ndim == 3:
        return affine(x, gain, shift)
    middle = (1,) * (x.ndim - 2)
    return x * gain.view(len(gain), *middle, -1) + shift.view(len(shift), *middle, -1)


def token_positions(spec: StandardTransformerSpec, rows: int, columns: int, like: Tensor) -> Tensor:
    """Return the constant positions [rows * columns, D] of sinusoidal kinds, in the dtype and on the device of `like`.

    `sinusoidal` is that of Vaswani et al. 2017 (arXiv 1706.03762, section 3.5), of tokens in a row. `sinusoidal_2d` is
    that of SimpleViT (Beyer et al. 2022, arXiv 2205.01580): sines and cosines of the column, then of the row.
    """
    return _positions_on(like.device, like.dtype, spec.positions, rows, columns, spec.width)


@lru_cache(maxsize=16)
def _positions_on(device: torch.device, dtype: torch.dtype, kind: str, rows: int, columns: int, width: int) -> Tensor:
    if kind == "sinusoidal":
        return positional_encoding(rows * columns, width).to(device, dtype)
    frequencies = 1.0 / 10_000.0 ** (torch.arange(width // 4) / (width // 4 - 1))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies[None] for place in (column, row)]
    parts = [function(angle) for angle in angles for function in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).to(device, dtype)


def rotations(spec: StandardTransformerSpec, tokens: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [t, D_k] of rotary positions (arXiv 2104.09864), of pairs (i, i + D_k / 2)."""
    return _rotations_on(like.device, like.dtype, spec.rope_theta, tokens, spec.key)


@lru_cache(maxsize=16)
def _rotations_on(
    device: torch.device, dtype: torch.dtype, theta: float, tokens: int, key: int
) -> tuple[Tensor, Tensor]:
    frequencies = 1.0 / theta ** (torch.arange(0, key, 2, dtype=torch.float32) / key)
    angles = torch.arange(tokens, dtype=torch.float32)[:, None] * frequencies[None]
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype)


def rotate(x: Tensor, spec: StandardTransformerSpec) -> Tensor:
    """Return queries or keys [b, n, h, t, D_k] with rotary positions."""
    cosines, sines = rotations(spec, x.shape[-2], x)
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


def embed(inputs: Tensor, weights: StandardTransformerWeights) -> Tensor:
    """Return the stream [b, n, t, D] before the first block.

    Args:
        inputs: images [n, channels, height, width], words [n, t] of integers, vectors [n, t, f], or streams [n, t, D].
            Soft words [n, t, vocabulary] are shares of all words. One set [b, n, ...] for each network is possible.
        weights: of b networks.

    Raises:
        SpecError: there are more tokens than learned positions.
    """
    spec, b = weights.spec, weights.batch
    is_soft = spec.inputs == "words" and inputs.is_floating_point()
    own = inputs.ndim == {"patches": 5, "words": 3, "vectors": 4, "stream": 4}[spec.inputs] + is_soft
    inputs = inputs if own else inputs[None]
    rows, columns = 1, inputs.shape[2]
    if spec.inputs == "words":
        assert weights.words is not None
        if is_soft:
            stream = affine(inputs, weights.words)
        else:
            # One table of all networks' words: no loop over networks.
            starts = torch.arange(b, device=inputs.device)[:, None, None] * weights.words.shape[1]
            stream = functional.embedding(inputs + starts, weights.words.flatten(0, 1))
        if weights.token_types is not None:
            stream = stream + weights.token_types[:, 0, None, None]
    elif spec.inputs == "stream":
        stream = inputs.expand(b, -1, -1, -1)
    else:
        if spec.inputs == "patches":
            rows, columns = inputs.shape[-2] // spec.patch[0], inputs.shape[-1] // spec.patch[1]
            inputs = patches(inputs, spec.patch)
        if weights.patch_gain is not None and weights.patch_shift is not None:
            inputs = apply_norm(inputs, spec, weights.patch_gain, weights.patch_shift, "layer")
        assert weights.W_E is not None
        stream = affine(inputs, weights.W_E, weights.b_E)
        stream = _embedding_norm(stream, weights)
    stream = _place(stream, weights, rows, columns)
    return _embedding_norm(stream, weights) if spec.inputs in ("words", "stream") else stream


def _embedding_norm(stream: Tensor, weights: StandardTransformerWeights) -> Tensor:
    if weights.embedding_gain is None or weights.embedding_shift is None:
        return stream
    return apply_norm(stream, weights.spec, weights.embedding_gain, weights.embedding_shift)


def _place(stream: Tensor, weights: StandardTransformerWeights, rows: int, columns: int) -> Tensor:
    """Return the stream with prefix tokens and positions."""
    spec = weights.spec
    positions = None
    if weights.positions is not None:
        tokens = stream.shape[2] + (spec.prefix_tokens if spec.positions_on_prefix else 0)
        stop = spec.position_offset + tokens
        if stop > spec.position_rows:
            raise SpecError(f"{stop} tokens, expected at most {spec.position_rows} with learned positions")
        positions = weights.positions[:, None, spec.position_offset : stop]
    elif spec.positions.startswith("sinusoidal"):
        positions = token_positions(spec, rows, columns, stream)
    on_prefix = weights.positions is not None and spec.positions_on_prefix
    if positions is not None and not on_prefix:
        stream = stream + positions
    if weights.prefix is not None:
        stream = torch.cat([weights.prefix[:, None].expand(-1, stream.shape[1], -1, -1), stream], dim=2)
    return stream + positions if positions is not None and on_prefix else stream


def queries_and_keys(
    reads: Tensor, block: StandardBlockWeights, spec: StandardTransformerSpec
) -> tuple[Tensor, Tensor]:
    """Return queries [b, n, h, t, D_k] and keys [b, n, g, t, D_k] of what attention reads, rotated if need be."""
    queries, keys = project(reads, block.W_Q, block.b_Q), project(reads, block.W_K, block.b_K)
    return (rotate(queries, spec), rotate(keys, spec)) if spec.positions == "rope" else (queries, keys)


def project(reads: Tensor, W: Tensor, bias: Tensor) -> Tensor:
    """Return the projections [b, n, h, t, D_k] of what attention reads [b, n, t, D] by W [b, h, D, D_k]."""
    merged = W.transpose(1, 2).flatten(2)  # [b, D, h D_k]
    return affine(reads, merged, bias.flatten(1)).unflatten(-1, W.shape[1::2]).transpose(2, 3)


def attention_rows(reads: Tensor, block: StandardBlockWeights, spec: StandardTransformerSpec) -> Tensor:
    """Return the attention [b, n, h, t, t] of each head; rows sum to 1."""
    queries, keys = queries_and_keys(reads, block, spec)
    if spec.groups < spec.heads:
        keys = keys.repeat_interleave(spec.heads // spec.groups, dim=2)
    scores = (queries / math.sqrt(spec.key)) @ keys.transpose(-1, -2)
    if spec.causal:
        tokens = scores.shape[-1]
        hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(-1)


def attend(reads: Tensor, rows: Tensor, block: StandardBlockWeights, spec: StandardTransformerSpec) -> Tensor:
    """Return the contribution [b, n, t, D] of attention with these rows."""
    values = project(reads, block.W_V, block.b_V)
    if spec.groups < spec.heads:
        values = values.repeat_interleave(spec.heads // spec.groups, dim=2)
    mixed = (rows @ values).transpose(2, 3).flatten(3)  # [b, n, t, h D_v]
    return affine(mixed, block.W_O.flatten(1, 2), block.b_O)


def pre_activations(reads: Tensor, block: StandardBlockWeights) -> Tensor:
    """Return what the MLP's activation reads [b, n, t, hidden]: the gate's numbers where there is one."""
    if block.W_G is None:
        return affine(reads, block.W_1, block.b_1)
    return affine(reads, block.W_G, block.b_G)


def hidden_activity(
    reads: Tensor, before: Tensor, block: StandardBlockWeights, spec: StandardTransformerSpec
) -> Tensor:
    """Return the activity [b, n, t, hidden] of hidden neurons, from `pre_activations`; gated where there is a gate."""
    activity = apply_activation(spec.activation, before)
    return activity if block.W_G is None else activity * affine(reads, block.W_1, block.b_1)


@dataclass(frozen=True)
class HalfBlock:
    """Half block of b networks, at work on a stream."""

    is_attention: bool
    """True for attention, False for the MLP."""
    block: StandardBlockWeights
    """Weights of the block."""
    before: Tensor
    """Stream [b, n, t, D] before it."""
    reads: Tensor
    """[b, n, t, D], the normed stream; with post-norm the stream itself."""
    rows: Tensor | None
    """Attention [b, n, h, t, t]; None for the MLP."""
    pre_activations: Tensor | None
    """[b, n, t, hidden]; None for attention."""
    activity: Tensor | None
    """[b, n, t, hidden]; None for attention."""
    contribution: Tensor
    """[b, n, t, D], which is added to the stream."""
    after: Tensor
    """Stream [b, n, t, D] after it; with post-norm after the norm."""


def half_blocks(stream: Tensor, weights: StandardTransformerWeights) -> Iterator[HalfBlock]:
    """Yield the two half blocks of each block, from a stream [b, n, t, D] before the first one."""
    spec = weights.spec
    for block in weights.blocks:
        for is_attention in (True, False):
            gain, shift = (block.gain_1, block.shift_1) if is_attention else (block.gain_2, block.shift_2)
            before = stream
            reads = apply_norm(stream, spec, gain, shift) if spec.placement == "pre" else stream
            rows = first = activity = None
            if is_attention:
                rows = attention_rows(reads, block, spec)
                contribution = attend(reads, rows, block, spec)
            else:
                first = pre_activations(reads, block)
                activity = hidden_activity(reads, first, block, spec)
                contribution = affine(activity, block.W_2, block.b_2)
            stream = before + contribution
            if spec.placement == "post":
                stream = apply_norm(stream, spec, gain, shift)
            yield HalfBlock(is_attention, block, before, reads, rows, first, activity, contribution, stream)


def outputs_of(stream: Tensor, weights: StandardTransformerWeights) -> Tensor:
    """Return the outputs [b, n, outputs] from the stream after the last block; [b, n, t, outputs] without pooling."""
    spec = weights.spec
    if spec.final_norm == "before_pooling":
        stream = _final_norm(stream, weights)
    if spec.pooling == "mean":
        stream = stream[:, :, spec.prefix_tokens :].mean(2)
    elif spec.pooling != "none":
        stream = stream[:, :, 0 if spec.pooling == "first" else -1]
    if spec.final_norm == "after_pooling":
        stream = _final_norm(stream, weights)
    last = len(weights.head_weights) - 1
    for layer, (W, b) in enumerate(zip(weights.head_weights, weights.head_biases, strict=True)):
        if layer == last and weights.head_gain is not None and weights.head_shift is not None:
            stream = apply_norm(stream, spec, weights.head_gain, weights.head_shift, "layer")
        stream = apply_activation(spec.activations[layer], affine(stream, W, b))
    return stream


def _final_norm(stream: Tensor, weights: StandardTransformerWeights) -> Tensor:
    assert weights.final_gain is not None
    assert weights.final_shift is not None
    return apply_norm(stream, weights.spec, weights.final_gain, weights.final_shift)


def standard_outputs(inputs: Tensor, weights: StandardTransformerWeights) -> Tensor:
    """Return the outputs of b networks for n inputs: logits [b, n, outputs], or [b, n, t, outputs] without pooling.

    Args:
        inputs: see `embed`.
        weights: of b networks.

    Raises:
        SpecError: the networks have no such word, or less positions than there are tokens.
    """
    spec = weights.spec
    if spec.inputs == "words" and not inputs.is_floating_point() and inputs.numel():
        low, high = (bound.item() for bound in inputs.aminmax())
        if low < 0 or high >= spec.vocabulary:  # `embed` would read a word of another network
            raise SpecError(f"words from {low} to {high}, expected 0 to {spec.vocabulary - 1}")
    stream = embed(inputs, weights)
    for half in half_blocks(stream, weights):
        stream = half.after
    return outputs_of(stream, weights)
