"""Forward pass of standard transformers in training: `weights.standard_pass`, with dropout and fused attention."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nfn_transformer.weights.standard_containers import StandardBlockWeights, StandardTransformerWeights
from nfn_transformer.weights.standard_pass import (
    affine,
    apply_norm,
    embed,
    hidden_activity,
    outputs_of,
    pre_activations,
    project,
    queries_and_keys,
)
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

_MOST_SAMPLES = 2**16 - 1
"""Most samples of all networks that one kernel reads: fused attention has a block of a GPU's grid for each."""


def training_outputs(
    inputs: Tensor, weights: StandardTransformerWeights, dropout: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the outputs of b networks, as `standard_outputs` does.

    Args:
        inputs: see `standard_pass.embed`.
        weights: of b networks.
        dropout: of the embedded tokens, and of what each half block adds to the stream [b, n, t, D].
    """
    spec = weights.spec
    stream = dropout(embed(inputs, weights))
    for block in weights.blocks:
        for half, gain, shift in ((_attention, block.gain_1, block.shift_1), (_mlp, block.gain_2, block.shift_2)):
            if spec.placement == "pre":
                stream = stream + dropout(half(apply_norm(stream, spec, gain, shift), block, spec))
            else:
                stream = apply_norm(stream + dropout(half(stream, block, spec)), spec, gain, shift)
    return outputs_of(stream, weights)


def _attention(reads: Tensor, block: StandardBlockWeights, spec: StandardTransformerSpec) -> Tensor:
    queries, keys = queries_and_keys(reads, block, spec)
    values = project(reads, block.W_V, block.b_V)
    if spec.groups < spec.heads:
        keys, values = (each.repeat_interleave(spec.heads // spec.groups, dim=2) for each in (keys, values))
    pieces = [each.flatten(0, 1).split(_MOST_SAMPLES) for each in (queries, keys, values)]  # [b n, h, t, D_k]
    parts = [scaled_dot_product_attention(q, k, v, is_causal=spec.causal) for q, k, v in zip(*pieces, strict=True)]
    mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
    mixed = mixed.unflatten(0, queries.shape[:2])
    return affine(mixed.transpose(2, 3).flatten(3), block.W_O.flatten(1, 2), block.b_O)


def _mlp(reads: Tensor, block: StandardBlockWeights, spec: StandardTransformerSpec) -> Tensor:
    return affine(hidden_activity(reads, pre_activations(reads, block), block, spec), block.W_2, block.b_2)
