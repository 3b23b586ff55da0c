"""Weights of b standard transformers. Every matrix multiplies from the right: a token x [D] becomes x @ W."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import Shape, TensorGroup, TensorTree
from nfn_transformer.weights.standard_spec import StandardTransformerSpec, block_shapes, rest_shapes


@dataclass(frozen=True)
class StandardBlockWeights(TensorTree):
    """Weights of one block. Biases and shifts that networks lack are 0, gains 1; without gate W_G and b_G are None."""

    gain_1: Tensor
    """[b, D], of the norm of attention."""
    shift_1: Tensor
    """[b, D]."""
    W_Q: Tensor
    """[b, h, D, D_k]."""
    b_Q: Tensor
    """[b, h, D_k]."""
    W_K: Tensor
    """[b, g, D, D_k]."""
    b_K: Tensor
    """[b, g, D_k]."""
    W_V: Tensor
    """[b, g, D, D_v]."""
    b_V: Tensor
    """[b, g, D_v]."""
    W_O: Tensor
    """[b, h, D_v, D]."""
    b_O: Tensor
    """[b, D]."""
    gain_2: Tensor
    """[b, D], of the norm of the MLP."""
    shift_2: Tensor
    """[b, D]."""
    W_1: Tensor
    """[b, D, hidden]; with a gate the map `up`."""
    b_1: Tensor
    """[b, hidden]."""
    W_2: Tensor
    """[b, hidden, D]."""
    b_2: Tensor
    """[b, D]."""
    W_G: Tensor | None = None
    """[b, D, hidden], the gate."""
    b_G: Tensor | None = None
    """[b, hidden]."""


@dataclass(frozen=True)
class StandardTransformerWeights(TensorTree):
    """Weights of b standard transformers of one spec. Tensors of parts that the spec lacks are None."""

    spec: StandardTransformerSpec
    """Sizes and function of the networks."""
    blocks: tuple[StandardBlockWeights, ...]
    """Blocks from input to output."""
    words: Tensor | None = None
    """[b, vocabulary, D]."""
    token_types: Tensor | None = None
    """[b, token types, D]."""
    patch_gain: Tensor | None = None
    """[b, token inputs], of the LayerNorm on patches."""
    patch_shift: Tensor | None = None
    """[b, token inputs]."""
    W_E: Tensor | None = None
    """[b, token inputs, D]; a patch's numbers are in the order of channel, row, column."""
    b_E: Tensor | None = None
    """[b, D]."""
    prefix: Tensor | None = None
    """[b, prefix tokens, D]."""
    positions: Tensor | None = None
    """[b, rows, D]."""
    embedding_gain: Tensor | None = None
    """[b, D], or [b, D, D] where the spec has an `embedding_mix`."""
    embedding_shift: Tensor | None = None
    """[b, D]."""
    final_gain: Tensor | None = None
    """[b, D]."""
    final_shift: Tensor | None = None
    """[b, D]."""
    head_weights: tuple[Tensor, ...] = ()
    """[b, n_s, n_(s+1)] of each layer of the head; a tied last one is a view of the words."""
    head_biases: tuple[Tensor, ...] = ()
    """[b, n_(s+1)]."""
    head_gain: Tensor | None = None
    """[b, n], of the LayerNorm before the head's last layer."""
    head_shift: Tensor | None = None
    """[b, n]."""

    def check(self, spec: object) -> None:
        """Raise SpecError unless the networks are of `spec`, and every tensor has the shape that it gives."""
        if self.spec != spec:
            raise SpecError(f"networks of {self.spec}, expected {spec}")
        standard_tensors(self)

    @property
    def batch(self) -> int:
        """Return the number b of networks."""
        return len(self.blocks[0].W_Q)

    def isfinite(self) -> Tensor:
        """Return for each network if all its weights are finite: bool [b]."""
        return torch.stack([torch.isfinite(tensor).flatten(1).all(1) for tensor in self.tensors()]).all(0)

    @property
    def trained_parts(self) -> tuple[TensorGroup, ...]:
        """Return the tensors of each block that are there, then all others."""
        rest, blocks = standard_tensors(self)
        return (*(TensorGroup(tuple(tensors.values())) for tensors in blocks), TensorGroup(tuple(rest.values())))

    def replace_words(self, words: Tensor) -> Self:
        """Return the weights with another embedding of words; a tied head follows it."""
        head = self.head_weights
        if self.spec.tied:
            head = (*head[:-1], words.transpose(1, 2))
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{**values, "words": words, "head_weights": head})


def standard_tensors(weights: StandardTransformerWeights) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Return role -> [b, *shape] of the tensors that are there: outside of the blocks, and of each block.

    All heads of a projection are one matrix, see `standard_spec.block_shapes`.

    Raises:
        SpecError: a tensor has another shape.
    """
    spec = weights.spec
    rest: dict[str, Tensor | None] = {
        role: tensor for role, tensor in vars(weights).items() if isinstance(tensor, Tensor) and role != "prefix"
    }
    if weights.prefix is not None:
        pieces = weights.prefix.split(list(spec.prefix), dim=1)
        rest |= {f"prefix.{index}": piece for index, piece in enumerate(pieces)}
    rest |= {f"head.{layer}.weight": W for layer, W in enumerate(weights.head_weights)}
    rest |= {f"head.{layer}.bias": b for layer, b in enumerate(weights.head_biases)}
    blocks = []
    for block in weights.blocks:
        tensors = dict(vars(block))
        for name in "QKV":
            tensors[f"W_{name}"] = tensors[f"W_{name}"].transpose(1, 2).flatten(2)
            tensors[f"b_{name}"] = tensors[f"b_{name}"].flatten(1)
        blocks.append(_chosen({**tensors, "W_O": block.W_O.flatten(1, 2)}, block_shapes(spec)))
    if len(blocks) != spec.blocks:
        raise SpecError(f"weights have {len(blocks)} blocks, expected {spec.blocks}")
    return _chosen(rest, rest_shapes(spec)), blocks


def _chosen(tensors: Mapping[str, Tensor | None], shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    chosen = {}
    for role, shape in shapes.items():
        tensor = tensors.get(role)
        if tensor is None or tuple(tensor.shape[1:]) != shape:
            found = None if tensor is None else tuple(tensor.shape)
            raise SpecError(f"'{role}' has shape {found}, expected (b, {', '.join(map(str, shape))})")
        chosen[role] = tensor
    return chosen
