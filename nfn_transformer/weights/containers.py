"""Typed containers for the weights of transformers, with a batch and a channel dimension in front.

Every tensor starts with [b, d]: b networks, d channels (1 for the weights of a checkpoint).
Encoder blocks multiply from the right (`x @ W`), feed-forward weights from the left
(`W @ x`), as in the papers on their layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec


def check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Raise SpecError unless the dimensions of `tensor` after [b, d] are `expected`."""
    if tensor.ndim < 2 or tuple(tensor.shape[2:]) != expected:
        wanted = ", ".join(["b", "d", *map(str, expected)])
        raise SpecError(f"'{name}' has shape {tuple(tensor.shape)}, expected ({wanted})")


class TensorTree:
    """What all containers share: mapping a function over their tensors."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The container with `function` applied to each tensor."""
        return replace(self, **{f.name: _map(getattr(self, f.name), function) for f in fields(self)})

    def tensors(self) -> list[Tensor]:
        """All tensors in the order of their definition."""
        found: list[Tensor] = []
        self.map(lambda tensor: found.append(tensor) or tensor)
        return found

    def to(self, *args, **kwargs) -> Self:
        """The container with `Tensor.to(*args, **kwargs)` applied to each tensor."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def __getitem__(self, index) -> Self:
        """The networks that `index` selects along the batch dimension (a slice or a list of indices)."""
        return self.map(lambda tensor: tensor[index])


def _map(value, function):
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_map(item, function) for item in value)
    return None if value is None else value.map(function)


@dataclass(frozen=True)
class BlockWeights(TensorTree):
    """Weights of one encoder block.

    Shapes: W_Q, W_K [b, d, h, D, D_k]; W_V [b, d, h, D, D_v]; W_O [b, d, h, D_v, D];
    W_A [b, d, D, D_A]; b_A [b, d, D_A]; W_B [b, d, D_A, D]; b_B [b, d, D].
    """

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    W_A: Tensor
    b_A: Tensor
    W_B: Tensor
    b_B: Tensor

    def check(self, spec: BlockSpec) -> None:
        """Raise SpecError unless every tensor has the shape that `spec` gives it."""
        for name, expected in block_shapes(spec).items():
            check_shape(name, getattr(self, name), expected)

    @property
    def spec(self) -> BlockSpec:
        """The block's sizes."""
        heads, width, key = self.W_Q.shape[2:]
        return BlockSpec(heads, width, key, self.W_V.shape[-1], self.W_A.shape[-1])

    @property
    def channels(self) -> int:
        """The number d of channels."""
        return self.W_A.shape[1]


def block_shapes(spec: BlockSpec) -> dict[str, tuple[int, ...]]:
    """Shape of each field of BlockWeights after its batch and channel dimensions."""
    h, width, key, value, hidden = spec.heads, spec.width, spec.key, spec.value, spec.hidden
    return {
        "W_Q": (h, width, key),
        "W_K": (h, width, key),
        "W_V": (h, width, value),
        "W_O": (h, value, width),
        "W_A": (width, hidden),
        "b_A": (hidden,),
        "W_B": (hidden, width),
        "b_B": (width,),
    }


@dataclass(frozen=True)
class FeedForwardWeights(TensorTree):
    """Weights of a feed-forward network: weights[s] [b, d, n_(s+1), n_s], biases[s] [b, d, n_(s+1)]."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def check(self, spec: FeedForwardSpec) -> None:
        """Raise SpecError unless every tensor has the shape that `spec` gives it."""
        if len(self.weights) != spec.layers or len(self.biases) != spec.layers:
            raise SpecError(f"feed-forward weights have {len(self.weights)} layers, expected {spec.layers}")
        for s, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            check_shape(f"weights[{s}]", weight, (spec.sizes[s + 1], spec.sizes[s]))
            check_shape(f"biases[{s}]", bias, (spec.sizes[s + 1],))

    @property
    def spec(self) -> FeedForwardSpec:
        """The network's sizes."""
        return FeedForwardSpec((self.weights[0].shape[-1], *(weight.shape[-2] for weight in self.weights)))

    @property
    def channels(self) -> int:
        """The number d of channels."""
        return self.weights[0].shape[1]


@dataclass(frozen=True)
class EmbeddingWeights(TensorTree):
    """Weights of a patch embedding.

    Shapes: conv_weight [b, d, D, channels, patch height, patch width]; conv_bias [b, d, D];
    pos_embedding [b, d, tokens, D], a constant that is kept for the round trip and never a feature.
    """

    conv_weight: Tensor
    conv_bias: Tensor
    pos_embedding: Tensor

    def check(self, spec: EmbeddingSpec) -> None:
        """Raise SpecError unless every tensor has the shape that `spec` gives it."""
        check_shape("conv_weight", self.conv_weight, (spec.width, spec.channels, *spec.patch))
        check_shape("conv_bias", self.conv_bias, (spec.width,))
        check_shape("pos_embedding", self.pos_embedding, (spec.tokens, spec.width))

    @property
    def spec(self) -> EmbeddingSpec:
        """The embedding's sizes."""
        width, channels, *patch = self.conv_weight.shape[2:]
        return EmbeddingSpec(channels, width, tuple(patch), self.pos_embedding.shape[2])


@dataclass(frozen=True)
class TransformerWeights(TensorTree):
    """Weights of b whole networks of one shape; `embedding` is None where checkpoints have none."""

    blocks: tuple[BlockWeights, ...]
    classifier: FeedForwardWeights
    embedding: EmbeddingWeights | None = None

    def check(self, spec: TransformerSpec) -> None:
        """Raise SpecError unless every part has the shape that `spec` gives it."""
        if len(self.blocks) != len(spec.blocks):
            raise SpecError(f"weights have {len(self.blocks)} blocks, expected {len(spec.blocks)}")
        for block, block_spec in zip(self.blocks, spec.blocks, strict=True):
            block.check(block_spec)
        self.classifier.check(spec.classifier)
        if (self.embedding is None) != (spec.embedding is None):
            raise SpecError(
                "weights have no embedding, the spec has one"
                if self.embedding is None
                else "weights have an embedding, the spec has none"
            )
        if self.embedding is not None and spec.embedding is not None:
            self.embedding.check(spec.embedding)

    @property
    def spec(self) -> TransformerSpec:
        """The networks' sizes."""
        embedding = None if self.embedding is None else self.embedding.spec
        return TransformerSpec(tuple(block.spec for block in self.blocks), self.classifier.spec, embedding)

    @property
    def batch(self) -> int:
        """The number b of networks."""
        return self.classifier.biases[0].shape[0]

    def isfinite(self) -> Tensor:
        """For each network whether all its weights are finite: bool [b]."""
        finite = [torch.isfinite(tensor).flatten(1).all(1) for tensor in self.tensors()]
        return torch.stack(finite).all(0)
