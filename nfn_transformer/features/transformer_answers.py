"""Answers of the Small-Transformer-Zoo's classifiers to images, or to texts of frozen word vectors."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.features.answers import ProbeInputs, stroke_pictures
from nfn_transformer.features.probes import random_images, random_texts, size_of_images
from nfn_transformer.features.propagation import FoldedBlock, normalize, scale_
from nfn_transformer.resources import map_in_threads
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.forward import classify, embed_patches, embed_words, logits_from_tokens, patches
from nfn_transformer.weights.spec import TransformerSpec

TINY_EPSILON = 1e-12
"""Epsilon far below the networks' own: scales of the stream, which belong to the group, then change no answer."""

# Inputs and numbers of a signal that are read at once. A CPU's thread reads fewer: what fits the caches, in operations
# so long that waiting for another thread between them costs little.
_INPUTS_AT_ONCE, _NUMBERS_AT_ONCE, _NUMBERS_OF_A_THREAD = 128, 1 << 24, 1 << 20


def transformer_probe_inputs(spec: TransformerSpec) -> ProbeInputs:
    """Return the inputs for networks of a spec: images, or texts of random word vectors with their positions."""
    classes = spec.classifier.sizes[-1]
    if spec.embedding is None:
        texts = tuple(map(embed_words, random_texts(spec.blocks[0].width)))
        return ProbeInputs(texts, classes, transformer_answers, read=read_answers)
    picture = (spec.embedding.channels, *size_of_images(spec.embedding))
    images = (*random_images(picture[0], picture[1:]), *stroke_pictures(picture))
    return ProbeInputs(images, classes, transformer_answers, picture, read=read_answers)


def transformer_answers(inputs: Tensor, weights: TransformerWeights) -> Float[Tensor, "b n classes"]:
    """Return logits as `transformer_logits`, of LayerNorms whose epsilon is next to nothing."""
    return transformer_logits(inputs, weights, TINY_EPSILON)


def transformer_logits(
    inputs: Tensor, weights: TransformerWeights, epsilon: float | None = None
) -> Float[Tensor, "b n classes"]:
    """Return the logits of b networks for images [n, ...], or for tokens [n, tokens, D]."""
    return logits_from_tokens(tokens_of(inputs, weights), weights, epsilon=epsilon)


def tokens_of(inputs: Tensor, weights: TransformerWeights) -> Float[Tensor, "b n tokens D"]:
    """Return the embedded patches of images [n, ...], or tokens [n, tokens, D] as they are, with b = 1."""
    inputs = inputs.to(weights.blocks[0].W_A)[None]
    if weights.embedding is None:
        return inputs
    rows, columns = weights.embedding.conv_weight.shape[-2:]
    return embed_patches(patches(inputs, (rows, columns)), weights.embedding)


def read_answers(inputs: Tensor, weights: TransformerWeights) -> Float[Tensor, "b n classes"]:
    """Return the logits of `transformer_answers` up to rounding, at two thirds of its cost.

    A LayerNorm only scales here, as the weights before it lose their mean. Signals below a deviation of 1e-6 are none.
    """
    *_, tokens, width = tokens_of(inputs[:1], weights[:1]).shape
    numbers = _NUMBERS_OF_A_THREAD if weights.classifier.biases[0].device.type == "cpu" else _NUMBERS_AT_ONCE
    pairs = max(1, numbers // (tokens * width))  # of a network and an input
    at_once = max(1, pairs // _INPUTS_AT_ONCE)
    pieces = inputs.chunk(max(1, math.ceil(len(inputs) / min(pairs, _INPUTS_AT_ONCE))))

    def answers(start: int) -> Tensor:
        some = weights[start : start + at_once]
        blocks = [FoldedBlock.of(block) for block in some.blocks]
        return torch.cat([_read(piece, some, blocks) for piece in pieces], dim=1)

    starts = range(0, max(1, weights.batch), at_once)
    return torch.cat(map_in_threads(answers, starts, _NUMBERS_AT_ONCE // numbers))


def _read(inputs: Tensor, weights: TransformerWeights, blocks: list[FoldedBlock]) -> Float[Tensor, "b n classes"]:
    signal = _normalized_tokens(inputs, weights)
    shape = signal.shape
    for block in blocks:  # one name for all, so that each signal takes the memory of one before, which is in the cache
        signal = scale_(_attended(signal, block))
        signal = block.preactivations(signal).relu_()
        signal = scale_(block.output(signal)).view(shape)
    return classify(signal.mean(2), weights.classifier)


def _attended(signal: Float[Tensor, "b n tokens D"], block: FoldedBlock) -> Float[Tensor, "b m D"]:
    attended = signal.new_zeros(signal.shape[0], signal.shape[1] * signal.shape[2], signal.shape[3])
    for scores, values, W_O in block.attend(signal):
        mixed = torch.bmm(scores.softmax(-1), values)
        attended.baddbmm_(mixed.view(*attended.shape[:2], W_O.shape[1]), W_O)
    return attended


def _normalized_tokens(inputs: Tensor, weights: TransformerWeights) -> Float[Tensor, "b n tokens D"]:
    """Return `tokens_of` inputs, normalised: the embedding loses its mean before it is used."""
    embedding = weights.embedding
    if embedding is None:
        tokens = normalize(tokens_of(inputs, weights))
        return tokens.expand(weights.batch, *tokens.shape[1:])
    kernel, bias, position = (
        weight - weight.mean(dim, keepdim=True)
        for weight, dim in ((embedding.conv_weight, 2), (embedding.conv_bias, 2), (embedding.pos_embedding, 3))
    )
    rows = patches(inputs.to(kernel), (kernel.shape[-2], kernel.shape[-1]))  # [n, tokens, C * patch area]
    embedded = torch.matmul(rows.flatten(0, 1), kernel.squeeze(1).flatten(2).transpose(1, 2))  # [b, n tokens, D]
    return scale_(embedded.unflatten(1, rows.shape[:2]).add_(bias[:, :, None] + position))
