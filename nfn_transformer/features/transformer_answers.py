"""Answers of the Small-Transformer-Zoo's classifiers to images, or to texts of frozen word vectors."""

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.features.answers import ProbeInputs, stroke_pictures
from nfn_transformer.features.probes import random_images, random_texts, size_of_images
from nfn_transformer.weights.containers import BlockWeights, TransformerWeights
from nfn_transformer.weights.forward import classify, embed_patches, embed_words, logits_from_tokens, patches
from nfn_transformer.weights.spec import TransformerSpec

TINY_EPSILON = 1e-12
"""Epsilon far below the networks' own: scales of the stream, which belong to the group, then change no answer."""

# Inputs and numbers of a signal that are read at once: on a CPU all signals of a block fit the second cache.
_INPUTS_AT_ONCE, _NUMBERS_AT_ONCE, _NUMBERS_ON_GPU = 32, 1 << 17, 1 << 24


def transformer_probe_inputs(spec: TransformerSpec) -> ProbeInputs:
    """Return the inputs for networks of a spec: images, or texts of random word vectors with their positions."""
    classes = spec.classifier.sizes[-1]
    read = read_answers if all(block.width <= 2 * min(block.key, block.value) for block in spec.blocks) else None
    if spec.embedding is None:
        texts = tuple(map(embed_words, random_texts(spec.blocks[0].width)))
        return ProbeInputs(texts, classes, transformer_answers, read=read)
    picture = (spec.embedding.channels, *size_of_images(spec.embedding))
    images = (*random_images(picture[0], picture[1:]), *stroke_pictures(picture))
    return ProbeInputs(images, classes, transformer_answers, picture, read=read)


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
    """Return the logits of `transformer_answers` up to rounding, at three quarters of its cost.

    A LayerNorm only scales here, as the weights before it lose their mean. Heads are read by their products
    W^Q (W^K)^T and W^V W^O, so that no signal is copied. That pays where heads are at least half as wide as the signal.
    """
    *_, tokens, width = tokens_of(inputs[:1], weights[:1]).shape
    numbers = _NUMBERS_AT_ONCE if weights.classifier.biases[0].device.type == "cpu" else _NUMBERS_ON_GPU
    pairs = max(1, numbers // (tokens * width))  # of a network and an input
    at_once = max(1, pairs // _INPUTS_AT_ONCE)
    parts = []
    for start in range(0, max(1, weights.batch), at_once):
        some = weights[start : start + at_once]
        answers = [_read(part, some) for part in inputs.split(min(pairs, _INPUTS_AT_ONCE))]
        parts.append(torch.cat(answers, dim=1))
    return torch.cat(parts)


def _read(inputs: Tensor, weights: TransformerWeights) -> Float[Tensor, "b n classes"]:
    signal = _without_mean(tokens_of(inputs, weights))
    signal = signal.expand(weights.batch, *signal.shape[1:])
    for block in weights.blocks:
        signal = _through_block(_scaled(signal), block)
    return classify(_scaled(signal).mean(2), weights.classifier)


def _through_block(signal: Float[Tensor, "b n tokens D"], block: BlockWeights) -> Float[Tensor, "b n tokens D"]:
    """Return the signal after a block, of mean 0 over D, from a scaled one."""
    b, n, tokens, width = signal.shape
    W_Q, W_K, W_V, W_O = (W.squeeze(1) for W in (block.W_Q, block.W_K, block.W_V, _without_mean(block.W_O)))
    QK = (W_Q * W_Q.shape[-1] ** -0.5) @ W_K.transpose(-1, -2)  # [b, h, D, D]
    VO = (W_V @ W_O).flatten(1, 2)  # [b, h D, D]
    of_input = signal.flatten(0, 1)  # [b n, tokens, D]
    queries = torch.bmm(signal.flatten(1, 2), QK.transpose(1, 2).flatten(2)).view(b * n, tokens * W_Q.shape[1], width)
    rows = torch.bmm(queries, of_input.transpose(1, 2)).softmax(-1)  # [b n, tokens h, tokens]
    attended = torch.bmm(torch.bmm(rows, of_input).view(b, n * tokens, VO.shape[1]), VO)
    hidden = torch.baddbmm(block.b_A, _scaled(attended), block.W_A.squeeze(1)).relu_()
    after = torch.baddbmm(_without_mean(block.b_B), hidden, _without_mean(block.W_B.squeeze(1)))
    return after.unflatten(1, (n, tokens))


def _scaled(signal: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    """Return a signal of mean 0 as the LayerNorm of TINY_EPSILON leaves it."""
    return signal * (signal.square().mean(-1, keepdim=True) + TINY_EPSILON).rsqrt()


def _without_mean(numbers: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    return numbers - numbers.mean(-1, keepdim=True)
