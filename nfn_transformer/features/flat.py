"""Weights as one flat vector per network, the input of the MLP baseline and of the tree models."""

import torch
from torch import Tensor

from nfn_transformer.weights.containers import BlockWeights, EmbeddingWeights, FeedForwardWeights, TransformerWeights

Part = BlockWeights | FeedForwardWeights | EmbeddingWeights


def learned_tensors(part: Part) -> list[Tensor]:
    """The trained tensors of a part, [b, d, ...] each: all but the constant positional encoding."""
    if isinstance(part, EmbeddingWeights):
        return [part.conv_weight, part.conv_bias]
    return part.tensors()


def flatten(parts: tuple[Part, ...]) -> Tensor:
    """All trained numbers of the parts side by side: [b, numbers]."""
    return torch.cat([tensor.flatten(1) for part in parts for tensor in learned_tensors(part)], dim=1)


def trained_parts(weights: TransformerWeights) -> tuple[Part, ...]:
    """Encoder blocks, classifier and, where there is one, embedding."""
    embedding = () if weights.embedding is None else (weights.embedding,)
    return (*weights.blocks, weights.classifier, *embedding)


def flatten_networks(weights: TransformerWeights) -> Tensor:
    """All trained numbers of whole networks, in the order of `trained_parts`: [b, numbers]."""
    return flatten(trained_parts(weights))
