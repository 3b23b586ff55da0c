"""Weights as one flat vector per network, the input of the MLP baseline and of the tree models."""

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.weights.containers import BlockWeights, EmbeddingWeights, FeedForwardWeights, TransformerWeights

Part = BlockWeights | FeedForwardWeights | EmbeddingWeights


def learned_tensors(part: Part) -> list[Tensor]:
    """Return the trained tensors [b, d, ...] of a part: all but the constant positional encoding."""
    if isinstance(part, EmbeddingWeights):
        return [part.conv_weight, part.conv_bias]
    return part.tensors()


def flatten(parts: tuple[Part, ...]) -> Float[Tensor, "b numbers"]:
    """Return all trained numbers of the parts side by side."""
    return torch.cat([tensor.flatten(1) for part in parts for tensor in learned_tensors(part)], dim=1)


def trained_parts(weights: TransformerWeights) -> tuple[Part, ...]:
    """Return encoder blocks, classifier and, if the networks have one, embedding."""
    embedding = () if weights.embedding is None else (weights.embedding,)
    return (*weights.blocks, weights.classifier, *embedding)


def flatten_networks(weights: TransformerWeights) -> Float[Tensor, "b numbers"]:
    """Return all trained numbers of whole networks, in the order of `trained_parts`."""
    return flatten(trained_parts(weights))
