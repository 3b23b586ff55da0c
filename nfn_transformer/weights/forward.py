"""Forward pass of the zoo's transformers, for b networks at once, as plain functions of their weights.

LayerNorms have no affine part and there are no residual connections; heads are contiguous.
Weights carry [b, 1, ...] (see `weights.containers`), activations [b, n, tokens, D] for n inputs.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import BlockWeights, EmbeddingWeights, FeedForwardWeights, TransformerWeights

LAYER_NORM_EPSILON = 1e-5

ActivationDropout = Callable[[Tensor], Tensor]


def no_dropout(activations: Tensor) -> Tensor:
    """Return the activations as they are."""
    return activations


def positional_encoding(tokens: int, width: int) -> Tensor:
    """Return the constant encoding [tokens, D]: sine in even, cosine in odd coordinates, base 10000."""
    position = torch.arange(tokens, dtype=torch.float64)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    encoding = torch.zeros(tokens, width, dtype=torch.float64)
    encoding[:, 0::2] = torch.sin(position * frequency)
    encoding[:, 1::2] = torch.cos(position * frequency)[:, : width // 2]
    return encoding.to(torch.float32)


def _normalize(x: Tensor, epsilon: float | None = None) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON if epsilon is None else epsilon)


def patches(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cut images [..., channels, height, width] into patches row by row: [..., tokens, channels * patch area]."""
    height, width = patch
    grid = images.unflatten(-1, (-1, width)).unflatten(-3, (-1, height))  # [..., C, rows, p, columns, q]
    grid = grid.movedim((-4, -2, -5, -3), (-5, -4, -3, -2))  # [..., rows, columns, C, p, q]
    return grid.flatten(-3).flatten(-3, -2)


def embed_patches(tokens: Tensor, embedding: EmbeddingWeights) -> Tensor:
    """Embed patches [b or 1, n, tokens, C * patch area] (see `patches`): [b, n, tokens, D]."""
    kernel = embedding.conv_weight.squeeze(1).flatten(2)  # [b, D, C p q]
    bias = embedding.conv_bias.squeeze(1)
    flat = tokens.flatten(1, 2)  # [b or 1, n tokens, C p q]
    embedded = torch.matmul(flat, kernel.transpose(1, 2)) + bias[:, None]
    return embedded.unflatten(1, tokens.shape[1:3]) + embedding.pos_embedding  # [b, n, T, D] + [b, 1, T, D]


@lru_cache(maxsize=16)
def _encoding_on(device: torch.device, dtype: torch.dtype, tokens: int, width: int) -> Tensor:
    """Return the constant encoding on a device: a copy on each call would hold back a GPU."""
    return positional_encoding(tokens, width).to(device, dtype)


def embed_words(vectors: Tensor) -> Tensor:
    """Add the positional encoding to frozen word vectors [b or 1, n, tokens, D] (zeros for padding)."""
    return vectors + _encoding_on(vectors.device, vectors.dtype, *vectors.shape[-2:])


def _attention(x: Tensor, block: BlockWeights) -> Tensor:
    def project(per_head: Tensor) -> Tensor:
        heads = per_head.shape[2]
        merged = per_head.squeeze(1).transpose(1, 2).flatten(2)  # [b, D, h D_k]
        projected = torch.bmm(x.flatten(1, 2), merged)  # [b, n T, h D_k]
        split = projected.unflatten(1, x.shape[1:3]).unflatten(3, (heads, -1))
        return split.transpose(2, 3)  # [b, n, h, T, D_k]

    # Written out: for the zoo's few tokens this takes half the time of `F.scaled_dot_product_attention` on a CPU.
    queries = project(block.W_Q) * block.W_Q.shape[-1] ** -0.5
    scores = torch.matmul(queries, project(block.W_K).transpose(-1, -2))  # [b, n, h, T, T]
    mixed = torch.matmul(scores.softmax(-1), project(block.W_V))  # [b, n, h, T, D_v]
    merged = mixed.transpose(2, 3).flatten(3).flatten(1, 2)  # [b, n T, h D_v]
    output = torch.bmm(merged, block.W_O.squeeze(1).flatten(1, 2))  # [b, n T, D]
    return output.unflatten(1, x.shape[1:3])


def _perceptron(x: Tensor, block: BlockWeights) -> Tensor:
    hidden = torch.baddbmm(block.b_A, x.flatten(1, 2), block.W_A.squeeze(1)).relu()  # [b, n T, D_A]
    return torch.baddbmm(block.b_B, hidden, block.W_B.squeeze(1)).unflatten(1, x.shape[1:3])


def apply_block(
    x: Tensor, block: BlockWeights, dropout: ActivationDropout = no_dropout, epsilon: float | None = None
) -> Tensor:
    """Apply one encoder block, LayerNorm, attention, LayerNorm, MLP: [b, n, tokens, D] to the same shape."""
    x = dropout(_attention(_normalize(x, epsilon), block))
    return dropout(_perceptron(_normalize(x, epsilon), block))


def classify(x: Tensor, classifier: FeedForwardWeights) -> Tensor:
    """Apply linear layers with ReLU between them: [b, n, n_0] to [b, n, n_L]."""
    last = len(classifier.weights) - 1
    for layer, (weight, bias) in enumerate(zip(classifier.weights, classifier.biases, strict=True)):
        x = torch.baddbmm(bias, x, weight.squeeze(1).transpose(1, 2))
        x = x if layer == last else x.relu()
    return x


def logits_from_tokens(
    x: Tensor,
    weights: TransformerWeights,
    dropout: ActivationDropout = no_dropout,
    epsilon: float | None = None,
) -> Tensor:
    """Return logits [b, n, classes] of b networks from embedded tokens [b, n, tokens, D].

    LayerNorms of a smaller `epsilon` than the networks' own leave the logits to the whole group's scales.
    """
    x = dropout(x.expand(weights.batch, *x.shape[1:]))
    for block in weights.blocks:
        x = apply_block(x, block, dropout, epsilon)
    return classify(_normalize(x, epsilon).mean(dim=2), weights.classifier)


def image_logits(images: Tensor, weights: TransformerWeights, dropout: ActivationDropout = no_dropout) -> Tensor:
    """Return logits [b, n, classes] of b networks on images.

    ```python
    images = torch.rand(1, 5, 1, 8, 8) * 2 - 1
    logits = nfn.image_logits(images, zoo.weights(torch.arange(8)))  # [8, 5, classes]
    ```

    Args:
        images: [b or 1, n, channels, height, width], values in [-1, 1]; with 1 in front all
            networks see the same images.
        weights: of networks with an embedding, whose patch size divides the image's.
        dropout: applied after the embedding, each attention and each MLP, in training only.

    Raises:
        SpecError: the weights have no embedding.
    """
    if weights.embedding is None:
        raise SpecError("weights have no embedding, expected one")
    rows, columns = weights.embedding.conv_weight.shape[-2:]
    tokens = embed_patches(patches(images, (rows, columns)), weights.embedding)
    return logits_from_tokens(tokens, weights, dropout)


def word_logits(vectors: Tensor, weights: TransformerWeights, dropout: ActivationDropout = no_dropout) -> Tensor:
    """Return logits [b, n, classes] on texts, as frozen word vectors [b or 1, n, tokens, D] (zeros for padding).

    Padded positions take part in attention and in the mean, as in the released zoo.
    """
    return logits_from_tokens(embed_words(vectors), weights, dropout)
