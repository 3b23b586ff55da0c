"""Random weights, and changes of them, for the tests of groups, layers and models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nfn_transformer import (
    BlockSpec,
    BlockWeights,
    EmbeddingWeights,
    FeedForwardSpec,
    FeedForwardWeights,
    TransformerSpec,
    TransformerWeights,
)
from nfn_transformer.weights.containers import weight_shapes


@dataclass(frozen=True)
class Acting:
    """A map of weights in place of a group element."""

    act: Callable


def random_block(spec: BlockSpec, batch: int, channels: int, generator: torch.Generator) -> BlockWeights:
    """Normal block weights in float64."""
    shapes = weight_shapes(spec)
    return BlockWeights(**{name: _normal((batch, channels, *shape), generator) for name, shape in shapes.items()})


def random_feed_forward(spec: FeedForwardSpec, batch: int, channels: int, generator) -> FeedForwardWeights:
    """Normal feed-forward weights in float64."""
    sizes = list(zip(spec.sizes[1:], spec.sizes[:-1], strict=True))
    return FeedForwardWeights(
        weights=tuple(_normal((batch, channels, *size), generator) for size in sizes),
        biases=tuple(_normal((batch, channels, size[0]), generator) for size in sizes),
    )


def random_transformer(spec: TransformerSpec, batch: int, generator: torch.Generator) -> TransformerWeights:
    """Normal weights of whole networks in float64, one channel."""
    embedding = None
    if spec.embedding is not None:
        shapes = weight_shapes(spec.embedding).values()
        embedding = EmbeddingWeights(*(_normal((batch, 1, *shape), generator) for shape in shapes))
    blocks = tuple(random_block(block, batch, 1, generator) for block in spec.blocks)
    return TransformerWeights(blocks, random_feed_forward(spec.classifier, batch, 1, generator), embedding)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def with_one_tensor_changed(
    U: FeedForwardWeights, generator: torch.Generator
) -> Iterator[tuple[str, FeedForwardWeights]]:
    """Each tensor's name, and the weights with other random numbers in it alone."""
    for part in ("weights", "biases"):
        for index, tensor in enumerate(getattr(U, part)):
            changed = list(getattr(U, part))
            changed[index] = tensor + torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            yield f"{part}[{index}]", replace(U, **{part: tuple(changed)})
