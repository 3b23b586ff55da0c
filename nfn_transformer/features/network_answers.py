"""Answers of feed-forward classifiers: CNNs on images, MLPs on vectors."""

from jaxtyping import Float
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.features.answers import ProbeInputs, stroke_pictures
from nfn_transformer.features.network_invariants import image_side, is_field, signals
from nfn_transformer.features.probes import random_images
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.feed_forward_pass import network_outputs
from nfn_transformer.weights.spec import NetworkSpec


def network_probe_inputs(spec: NetworkSpec) -> ProbeInputs:
    """Return the inputs for networks of a spec: images, or random vectors.

    Raises:
        SpecError: the networks are INRs, or no image has the size that flattened maps need.
    """
    if is_field(spec):
        raise SpecError(f"networks of family {spec.family}, expected classifiers")
    classes = spec.sizes[-1]
    if not spec.convolutions:
        return ProbeInputs(tuple(signals(spec)), classes, network_answers)
    picture = (spec.sizes[0], image_side(spec), image_side(spec))
    images = (*random_images(picture[0], picture[1:]), *stroke_pictures(picture))
    return ProbeInputs(images, classes, network_answers, picture)


def network_answers(inputs: Tensor, weights: NetworkWeights) -> Float[Tensor, "b n classes"]:
    """Return the logits of b networks for inputs [n, ...]; maps are averaged over their positions."""
    outputs = network_outputs(inputs.to(weights.biases[0]), weights)
    return outputs if outputs.ndim == 3 else outputs.mean((-2, -1))
