"""Answers of standard transformers: image and text classifiers, and language models, which tell the next word apart.

Texts are words at random, as in `features.standard_probes`. Every network embeds them by its own rows. A language model
votes for the next word after the prefixes of these texts.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.features.answers import ProbeInputs, stroke_pictures
from nfn_transformer.features.probes import random_images
from nfn_transformer.features.standard_probes import image_size, random_words, standard_probes
from nfn_transformer.weights.standard_containers import StandardTransformerWeights
from nfn_transformer.weights.standard_pass import standard_outputs
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

# Strokes are drawn on small images alone. Tests have few classes: each gets pictures or texts of its own.
_LARGEST_PICTURE, _MOST_CLASSES = 64, 32
# A family's votes keep up to this count of probabilities: those of a language model are many.
_SHARES = 1 << 18
_TEXTS = 32
# Networks are asked together up to this count of numbers in their signals.
_NUMBERS_AT_ONCE = 1 << 25


def standard_probe_inputs(spec: StandardTransformerSpec) -> ProbeInputs:
    """Return the inputs for networks of a spec: images, texts of random words, or random vectors.

    Raises:
        SpecError: the networks have no head, or a single output.
    """
    classes = spec.head_sizes[-1] if spec.head_sizes else 0
    if classes < 2:
        raise SpecError(f"networks with a head of {classes} outputs, expected classifiers or language models")
    picture = draw_texts = None
    if spec.inputs == "patches":
        shape = (spec.channels, *image_size(spec))
        families = random_images(shape[0], shape[1:])
        if max(shape) <= _LARGEST_PICTURE and classes <= _MOST_CLASSES:
            families, picture = [*families, *stroke_pictures(shape)], shape
    else:
        families = list(standard_probes(spec, _TEXTS).values())
        if spec.inputs == "words" and spec.pooling != "none" and classes <= _MOST_CLASSES:
            draw_texts = partial(random_words, spec)
    families = [family[: max(1, _SHARES // classes)] for family in families]
    positions = 1
    if spec.pooling == "none":
        most = max(1, _SHARES // (max(map(len, families)) * classes))
        positions = min(_tokens(spec, families[0]), most)
    answer = partial(standard_answers, positions=positions)
    return ProbeInputs(tuple(families), classes, answer, picture, draw_texts, positions)


def _tokens(spec: StandardTransformerSpec, inputs: Tensor) -> int:
    """Return the number of tokens of an input, without prefix tokens."""
    if spec.inputs != "patches":
        return inputs.shape[1]
    return inputs.shape[2] // spec.patch[0] * (inputs.shape[3] // spec.patch[1])


def standard_answers(
    inputs: Tensor, weights: StandardTransformerWeights, positions: int = 1
) -> Float[Tensor, "b answers classes"]:
    """Return the logits of b networks for inputs [n, ...]; without pooling those of each input's last positions."""
    spec, like = weights.spec, weights.blocks[0].b_O
    inputs = inputs.to(like.device, like.dtype if inputs.is_floating_point() else inputs.dtype)
    tokens = _tokens(spec, inputs) + spec.prefix_tokens
    of_token = 6 * spec.width + 3 * spec.hidden + spec.heads * (4 * tokens + 3 * spec.value)
    of_token += spec.head_sizes[-1] if spec.pooling == "none" else 0
    at_once = max(1, _NUMBERS_AT_ONCE // (tokens * of_token))  # of pairs of a network and an input
    parts = []
    for start in range(0, weights.batch, max(1, at_once // len(inputs))):
        some = weights[start : start + max(1, at_once // len(inputs))]
        outputs = torch.cat([standard_outputs(part, some) for part in inputs.split(at_once)], dim=1)
        parts.append(outputs if spec.pooling != "none" else outputs[:, :, -positions:].flatten(1, 2))
    return torch.cat(parts)
