"""Answers of the Small-Transformer-Zoo's classifiers to images, or to texts of frozen word vectors."""

from jaxtyping import Float
from torch import Tensor

from nfn_transformer.features.answers import ProbeInputs, stroke_pictures
from nfn_transformer.features.probes import random_images, random_texts, size_of_images
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.forward import embed_patches, embed_words, logits_from_tokens, patches
from nfn_transformer.weights.spec import TransformerSpec

TINY_EPSILON = 1e-12
"""Epsilon far below the networks' own: scales of the stream, which belong to the group, then change no answer."""


def transformer_probe_inputs(spec: TransformerSpec) -> ProbeInputs:
    """Return the inputs for networks of a spec: images, or texts of random word vectors with their positions."""
    classes = spec.classifier.sizes[-1]
    if spec.embedding is None:
        return ProbeInputs(tuple(map(embed_words, random_texts(spec.blocks[0].width))), classes, transformer_answers)
    picture = (spec.embedding.channels, *size_of_images(spec.embedding))
    images = (*random_images(picture[0], picture[1:]), *stroke_pictures(picture))
    return ProbeInputs(images, classes, transformer_answers, picture)


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
