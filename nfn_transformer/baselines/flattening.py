"""Weights as one flat vector per network, the input of the MLP baseline and of the tree models."""

import torch
from torch import Tensor

from nfn_transformer.weights.containers import BlockWeights, EmbeddingWeights, FeedForwardWeights, TransformerWeights
from nfn_transformer.zoo.reading import Zoo

Part = BlockWeights | FeedForwardWeights | EmbeddingWeights

_BATCH = 256


def learned_tensors(part: Part) -> list[Tensor]:
    """The trained tensors of a part, [b, d, ...] each: all but the constant positional encoding."""
    if isinstance(part, EmbeddingWeights):
        return [part.conv_weight, part.conv_bias]
    return part.tensors()


def flatten(parts: tuple[Part, ...]) -> Tensor:
    """All trained numbers of the parts side by side: [b, numbers]."""
    return torch.cat([tensor.flatten(1) for part in parts for tensor in learned_tensors(part)], dim=1)


def flatten_networks(weights: TransformerWeights) -> Tensor:
    """All trained numbers of whole networks, encoder, classifier and, where there is one, embedding: [b, numbers]."""
    embedding = () if weights.embedding is None else (weights.embedding,)
    return flatten((*weights.blocks, weights.classifier, *embedding))


def flatten_checkpoints(zoo: Zoo, index: Tensor) -> Tensor:
    """All trained numbers of the checkpoints that `index` [n] selects: [n, numbers].

    No more than a few of them are ever in memory twice.

    Raises:
        ValueError: `index` is empty.
    """
    flat = None
    for start in range(0, len(index), _BATCH):
        part = flatten_networks(zoo.weights(index[start : start + _BATCH]))
        if flat is None:
            flat = part.new_empty(len(index), part.shape[1])
        flat[start : start + len(part)] = part
    if flat is None:
        raise ValueError("no checkpoints are selected")
    return flat
