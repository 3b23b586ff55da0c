"""Typed containers for the weights of transformers, with a batch and a channel dimension in front.

Every tensor starts with [b, d]: b networks, d channels (1 for the weights of a checkpoint).
Encoder blocks multiply from the right (`x @ W`), feed-forward weights from the left (`W @ x`), as in the papers.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, NetworkSpec, TransformerSpec

if TYPE_CHECKING:
    from nfn_transformer.weights.any_weights import Weights  # whose module imports this one

Shape = tuple[int, ...]
PartSpec = BlockSpec | FeedForwardSpec | EmbeddingSpec


@dataclass(frozen=True)
class TensorTree:
    """Base of frozen dataclasses whose fields are tensors, trees, tuples of these, or what no tensor depends on."""

    def map(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """Return the tree of `function(tensor, *tensors)` over the tensors of this tree and those of `others`.

        Args:
            others: trees with the structure of this one.

        Raises:
            ValueError: a tuple has another length in one of the others.
        """
        mapped: dict = {}
        for field in fields(self):
            values = [getattr(tree, field.name) for tree in (self, *others)]
            is_tuple = isinstance(values[0], tuple)
            results: list = []
            for first, *rest in zip(*values, strict=True) if is_tuple else [values]:
                if isinstance(first, TensorTree):
                    results.append(first.map(function, *rest))
                else:
                    results.append(function(first, *rest) if isinstance(first, Tensor) else first)
            mapped[field.name] = tuple(results) if is_tuple else results[0]
        return replace(self, **mapped)

    def tensors(self) -> list[Tensor]:
        """Return all tensors in the order of their definition."""
        tensors: list[Tensor] = []
        values: list = [self]
        while values:
            value = values.pop()
            if isinstance(value, Tensor):
                tensors.append(value)
            elif isinstance(value, tuple):
                values.extend(reversed(value))
            elif isinstance(value, TensorTree):
                values.extend(getattr(value, field.name) for field in reversed(fields(value)))
        return tensors

    def to(self, *args, **kwargs) -> Self:
        """Return the tree with `Tensor.to(*args, **kwargs)` applied to each tensor."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def __getitem__(self, index) -> Self:
        """Return the networks that `index` selects along the batch dimension: a slice, a list or tensor of indices."""
        return self.map(lambda tensor: tensor[index])


@dataclass(frozen=True)
class PartWeights(TensorTree):
    """Base of the weights of one part of a network: tensors [b, d, ...] of b networks and d channels."""

    def check(self, spec: PartSpec) -> None:
        """Raise SpecError unless the dimensions of every tensor after [b, d] are those of `spec`."""
        tensors: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            each = {f"{field.name}[{s}]": tensor for s, tensor in enumerate(value)} if isinstance(value, tuple) else {}
            tensors.update(each or {field.name: value})
        expected = weight_shapes(spec)
        if tensors.keys() != expected.keys():
            raise SpecError(f"weights have the tensors {', '.join(tensors)}, expected {', '.join(expected)}")
        for name, tensor in tensors.items():
            if tensor.ndim < 2 or tuple(tensor.shape[2:]) != expected[name]:
                shape = ", ".join(["b", "d", *map(str, expected[name])])
                raise SpecError(f"'{name}' has shape {tuple(tensor.shape)}, expected ({shape})")


def weight_shapes(spec: PartSpec) -> dict[str, Shape]:
    """Return the shape after [b, d] of each tensor of a part: of `W_Q`, or of `weights[0]` in a tuple."""
    if isinstance(spec, FeedForwardSpec):
        sides = list(itertools.pairwise(spec.sizes))
        weights: dict[str, Shape] = {f"weights[{s}]": (rows, columns) for s, (columns, rows) in enumerate(sides)}
        return {**weights, **{f"biases[{s}]": (rows,) for s, (_, rows) in enumerate(sides)}}
    if isinstance(spec, EmbeddingSpec):
        return {
            "conv_weight": (spec.width, spec.channels, *spec.patch),
            "conv_bias": (spec.width,),
            "pos_embedding": (spec.tokens, spec.width),
        }
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
class BlockWeights(PartWeights):
    """Weights of one encoder block: b networks, d channels, h attention heads, widths D, D_k, D_v and D_A.

    A token x [D] is multiplied from the left: x W_Q, x W_K, x W_V, then W_O, x W_A + b_A and W_B + b_B.
    """

    W_Q: Tensor
    """[b, d, h, D, D_k]."""
    W_K: Tensor
    """[b, d, h, D, D_k]."""
    W_V: Tensor
    """[b, d, h, D, D_v]."""
    W_O: Tensor
    """[b, d, h, D_v, D]."""
    W_A: Tensor
    """[b, d, D, D_A]."""
    b_A: Tensor
    """[b, d, D_A]."""
    W_B: Tensor
    """[b, d, D_A, D]."""
    b_B: Tensor
    """[b, d, D]."""

    @property
    def spec(self) -> BlockSpec:
        """Return the sizes of the block."""
        heads, width, key = self.W_Q.shape[2:]
        return BlockSpec(heads, width, key, self.W_V.shape[-1], self.W_A.shape[-1])

    @property
    def channels(self) -> int:
        """Return the number d of channels."""
        return self.W_A.shape[1]


@dataclass(frozen=True)
class FeedForwardWeights(PartWeights):
    """Weights of a feed-forward network of sizes n_0, ..., n_L."""

    weights: tuple[Tensor, ...]
    """Matrices of the layers, weights[s] of shape [b, d, n_(s+1), n_s]."""
    biases: tuple[Tensor, ...]
    """Biases of the layers, biases[s] of shape [b, d, n_(s+1)]."""

    @property
    def spec(self) -> FeedForwardSpec:
        """Return the sizes of the network."""
        return FeedForwardSpec((self.weights[0].shape[-1], *(weight.shape[-2] for weight in self.weights)))

    @property
    def channels(self) -> int:
        """Return the number d of channels."""
        return self.weights[0].shape[1]


@dataclass(frozen=True)
class EmbeddingWeights(PartWeights):
    """Weights of a patch embedding."""

    conv_weight: Tensor
    """[b, d, D, channels, patch height, patch width]."""
    conv_bias: Tensor
    """[b, d, D]."""
    pos_embedding: Tensor
    """[b, d, tokens, D], a constant that is kept for the round trip and never a feature."""

    @property
    def spec(self) -> EmbeddingSpec:
        """Return the sizes of the embedding."""
        width, channels, *patch = self.conv_weight.shape[2:]
        return EmbeddingSpec(channels, width, (patch[0], patch[1]), self.pos_embedding.shape[2])


@dataclass(frozen=True)
class TransformerWeights(TensorTree):
    """Weights of b whole networks of one spec."""

    blocks: tuple[BlockWeights, ...]
    classifier: FeedForwardWeights
    embedding: EmbeddingWeights | None = None
    """None if the checkpoints have no embedding."""

    def check(self, spec: object) -> None:
        """Raise SpecError unless every part has the shape that `spec` gives it."""
        if not isinstance(spec, TransformerSpec):
            raise SpecError(f"weights of transformers, expected networks of {spec}")
        if len(self.blocks) != len(spec.blocks):
            raise SpecError(f"weights have {len(self.blocks)} blocks, expected {len(spec.blocks)}")
        for block, block_spec in zip(self.blocks, spec.blocks, strict=True):
            block.check(block_spec)
        self.classifier.check(spec.classifier)
        if (self.embedding is None) != (spec.embedding is None):
            raise SpecError(
                "weights have no embedding, expected one"
                if self.embedding is None
                else "weights have an embedding, expected none"
            )
        if self.embedding is not None and spec.embedding is not None:
            self.embedding.check(spec.embedding)

    @property
    def spec(self) -> TransformerSpec:
        """Return the sizes of the networks."""
        embedding = None if self.embedding is None else self.embedding.spec
        return TransformerSpec(tuple(block.spec for block in self.blocks), self.classifier.spec, embedding)

    @property
    def batch(self) -> int:
        """Return the number b of networks."""
        return self.classifier.biases[0].shape[0]

    def isfinite(self) -> Tensor:
        """Return for each network if all its weights are finite: bool [b]."""
        finite = [torch.isfinite(tensor).flatten(1).all(1) for tensor in self.tensors()]
        return torch.stack(finite).all(0)

    @property
    def trained_parts(self) -> tuple["Part", ...]:
        """Return encoder blocks, classifier and, if the networks have one, embedding."""
        embedding = () if self.embedding is None else (self.embedding,)
        return (*self.blocks, self.classifier, *embedding)


@dataclass(frozen=True)
class NetworkWeights(TensorTree):
    """Weights of b feed-forward networks of one spec."""

    spec: NetworkSpec
    """Sizes and function of the networks."""
    weights: tuple[Tensor, ...]
    """weights[s] of shape [b, n_(s+1), n_s, *kernel]; [b, n_(s+1), n_s, flattened] where maps are flattened."""
    biases: tuple[Tensor, ...]
    """biases[s] of shape [b, n_(s+1)]."""

    def check(self, spec: object) -> None:
        """Raise SpecError unless the networks are of `spec`, and every tensor has the shape that it gives."""
        if self.spec != spec or not isinstance(spec, NetworkSpec):
            raise SpecError(f"networks of {self.spec}, expected {spec}")
        sides = itertools.pairwise(spec.sizes)
        shapes = [(out, into, *rest) for (into, out), rest in zip(sides, spec.trailing, strict=True)]
        for name, tensors in (("weights", self.weights), ("biases", self.biases)):
            if len(tensors) != len(shapes):
                raise SpecError(f"networks have {len(tensors)} {name}, expected {len(shapes)}")
            for s, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
                expected = shape if name == "weights" else shape[:1]
                if tuple(tensor.shape[1:]) != expected:
                    raise SpecError(
                        f"'{name}[{s}]' has shape {tuple(tensor.shape)}, expected (b, {', '.join(map(str, expected))})"
                    )

    @property
    def batch(self) -> int:
        """Return the number b of networks."""
        return len(self.biases[0])

    def isfinite(self) -> Tensor:
        """Return for each network if all its weights are finite: bool [b]."""
        return torch.stack([torch.isfinite(tensor).flatten(1).all(1) for tensor in self.tensors()]).all(0)

    @property
    def trained_parts(self) -> tuple["Part", ...]:
        """Return the networks themselves."""
        return (self,)

    def features(self) -> FeedForwardWeights:
        """Return the weights with a kernel's numbers as channels, [b, channels, n_(s+1), n_s], as layers read them.

        Permuting neurons or feature maps acts on all channels alike. Layers with smaller kernels than the largest have
        zeros in the other channels.
        """
        count = self.spec.channels
        weights = [weight.reshape(*weight.shape[:3], -1).movedim(3, 1) for weight in self.weights]
        return FeedForwardWeights(
            tuple(pad_channels(weight, count) for weight in weights),
            tuple(pad_channels(bias[:, None], count) for bias in self.biases),
        )


def pad_channels(tensor: Tensor, channels: int) -> Tensor:
    """Return the tensor [b, d, ...] with zeros in the missing of so many channels."""
    missing = tensor.new_zeros(len(tensor), channels - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], dim=1) if missing.numel() else tensor


@dataclass(frozen=True)
class TensorGroup(TensorTree):
    """Tensors [b, ...] of one part of b networks."""

    group: tuple[Tensor, ...]
    """Tensors of the part."""


Part = BlockWeights | FeedForwardWeights | EmbeddingWeights | NetworkWeights | TensorGroup


def trained_tensors(part: Part) -> list[Tensor]:
    """Return the trained tensors [b, d, ...] of a part: all but the constant positional encoding."""
    if isinstance(part, EmbeddingWeights):
        return [part.conv_weight, part.conv_bias]
    return part.tensors()


def flatten(parts: tuple[Part, ...]) -> Float[Tensor, "b numbers"]:
    """Return all trained numbers of the parts side by side."""
    return torch.cat([tensor.flatten(1) for part in parts for tensor in trained_tensors(part)], dim=1)


def flatten_networks(weights: "Weights") -> Float[Tensor, "b numbers"]:
    """Return all trained numbers of whole networks, in the order of their `trained_parts`."""
    return flatten(weights.trained_parts)
