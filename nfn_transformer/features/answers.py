"""Answers of classifiers to inputs, and the fixed inputs that all networks of a spec are asked about."""

from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Float
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import AnySpec
from nfn_transformer.features.network_invariants import image_side, is_field, signals
from nfn_transformer.features.probes import random_images, random_texts, size_of_images
from nfn_transformer.features.strokes import draw_strokes, random_strokes
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import NetworkWeights, TransformerWeights
from nfn_transformer.weights.feed_forward_pass import network_outputs
from nfn_transformer.weights.forward import embed_patches, embed_words, logits_from_tokens, patches
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec

# Far below the networks' own: scales of the stream, which belong to the group, then change no answer.
_EPSILON = 1e-12

STROKE_PICTURES = 480
"""Pictures of random strokes among the inputs."""


@dataclass(frozen=True)
class ProbeInputs:
    """Inputs for networks of a spec: synthetic ones, the same for all, made of no data."""

    families: tuple[Tensor, ...]
    """inputs [n, ...] of each family: images of blobs, noise and strokes; texts as word vectors; or vectors"""
    picture: tuple[int, int, int] | None
    """channels, height and width of images; None of other inputs"""
    classes: int
    """number of classes that the networks tell apart"""

    def is_like(self, other: "ProbeInputs") -> bool:
        """Return whether answers to both mean the same."""
        shapes, others = ([family.shape for family in each.families] for each in (self, other))
        return (shapes, self.classes) == (others, other.classes)


@lru_cache(maxsize=8)
def probe_inputs(spec: AnySpec) -> ProbeInputs:
    """Return the inputs for networks of a spec.

    Raises:
        SpecError: the networks are no classifiers, or of a family whose answers are not computed.
    """
    if isinstance(spec, TransformerSpec):
        classes = spec.classifier.sizes[-1]
        if spec.embedding is None:
            return ProbeInputs(tuple(map(embed_words, random_texts(spec.blocks[0].width))), None, classes)
        picture = (spec.embedding.channels, *size_of_images(spec.embedding))
    elif isinstance(spec, NetworkSpec) and not is_field(spec):
        classes = spec.sizes[-1]
        if not spec.convolutions:
            return ProbeInputs(tuple(signals(spec)), None, classes)
        picture = (spec.sizes[0], image_side(spec), image_side(spec))
    else:
        raise SpecError(f"networks of family {spec.family}, expected classifiers")
    strokes = random_strokes(STROKE_PICTURES, make_generator(0, "probes", "strokes"))
    drawn = draw_strokes(strokes, picture[0], picture[1:])
    by_count = [drawn[strokes.count == count] for count in strokes.count.unique().tolist()]
    return ProbeInputs((*random_images(picture[0], picture[1:]), *by_count), picture, classes)


def answers(inputs: Tensor, weights: Weights) -> Float[Tensor, "b n classes"]:
    """Return the logits of b classifiers for inputs [n, ...], as `ProbeInputs` holds them.

    Raises:
        SpecError: the networks are of a family whose answers are not computed.
    """
    if isinstance(weights, NetworkWeights):
        outputs = network_outputs(inputs.to(weights.biases[0]), weights)
        return outputs if outputs.ndim == 3 else outputs.mean((-2, -1))
    if not isinstance(weights, TransformerWeights):
        raise SpecError("networks of a family whose answers are not computed")
    tokens = inputs.to(weights.blocks[0].W_A)[None]
    if weights.embedding is not None:
        rows, columns = weights.embedding.conv_weight.shape[-2:]
        tokens = embed_patches(patches(tokens, (rows, columns)), weights.embedding)
    return logits_from_tokens(tokens, weights, epsilon=_EPSILON)
