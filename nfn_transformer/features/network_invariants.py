"""Invariants of feed-forward networks: numbers that no element of their group changes (`groups.network`).

Fixed synthetic signals go through a network. Convolutions read images of random blobs and noise, an INR a grid of
coordinates, other MLPs random vectors. No data of any task are used. The group permutes the responses of a layer's
neurons and multiplies each by its factor, and nothing else. A phase of a sine neuron changes its response by a sign.
So each response is multiplied by the norm of the weights that read it, both in the canonical form without scales. What
is left are signs and permutations. They are orthogonal, and even functions of each neuron do not notice them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.features.probes import PROBES, random_images
from nfn_transformer.features.propagation import (
    NamedNumbers,
    answer_invariants,
    prefixed,
    side_by_side,
    signal_invariants,
)
from nfn_transformer.groups.network import canonical_form
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.containers import NetworkWeights, TensorTree
from nfn_transformer.weights.feed_forward_pass import network_responses
from nfn_transformer.weights.spec import NetworkSpec

COORDINATES = {1: 256, 2: 32, 3: 10}
"""Count of coordinates along each axis of the grid of an INR, by the number of its inputs."""

# Networks are read together up to this count of numbers in their responses.
_NUMBERS_AT_ONCE = 1 << 24
_IMAGES, _IMAGE, _LARGEST_IMAGE = 16, 28, 256
_SMALL = 1e-6


@dataclass(frozen=True)
class NetworkInvariants(TensorTree):
    """Invariants of b networks of L layers."""

    layers: Float[Tensor, "*n b hidden numbers"]
    """Invariants of each hidden layer."""
    rest: Float[Tensor, "*n b others"]
    """Invariants of the answers: of a classifier without telling its classes apart, of an INR how its values spread."""
    drawn: Float[Tensor, "*n b points"] | None = None
    """Values of an INR on the grid, output by output; None of other networks."""


def is_field(spec: NetworkSpec) -> bool:
    """Return whether networks are INRs: fully connected, of one to three coordinates."""
    return not spec.convolutions and spec.sizes[0] in COORDINATES


def count_network_invariants(spec: NetworkSpec) -> tuple[int, int]:
    """Return the numbers of a hidden layer and of the answers.

    Raises:
        SpecError: the networks have no hidden layer, or no image has the size that flattened maps need.
    """
    if spec.layers < 2:
        raise SpecError(f"networks of sizes {spec.sizes}, expected a hidden layer")
    families = len(signals(spec))
    return families * len(_layer_names()), families * len(_answer_names(is_field(spec)))


@torch.no_grad()
def read_network_invariants(weights: NetworkWeights) -> NetworkInvariants:
    """Return the invariants of b networks.

    Raises:
        SpecError: no image has the size that flattened maps need.
    """
    spec = weights.spec
    largest = max(1, sum(spec.sizes[1:])) * PROBES * _points_of(spec)
    chunk = max(1, _NUMBERS_AT_ONCE // largest)
    parts = [_read(weights[start : start + chunk]) for start in range(0, weights.batch, chunk)]
    return parts[0].map(lambda *tensors: torch.cat(tensors), *parts[1:])


def _read(weights: NetworkWeights) -> NetworkInvariants:
    """Return the invariants of as many networks as fit at once."""
    spec, layers, answers, drawn = weights.spec, [], [], None
    form = canonical_form(weights, scales=True)
    read_by = [matrix.transpose(1, 2).flatten(2).norm(dim=2) for matrix in form.weights.weights[1:]]
    sizes = [(row.abs(), row.abs() * norm) for row, norm in zip(form.rows, read_by, strict=True)]
    for inputs in signals(spec):
        *hidden, outputs = network_responses(inputs.to(weights.biases[0]), weights)
        outputs = outputs if outputs.ndim == 3 else outputs.mean((-2, -1))  # a network of convolutions alone
        named = [layer_invariants(of_layer, *pair) for of_layer, pair in zip(hidden, sizes, strict=True)]
        layers.append(torch.stack([side_by_side(each) for each in named], dim=1))
        answers.append(side_by_side(_answer(outputs, is_field(spec))))
        if is_field(spec):
            drawn = outputs.transpose(1, 2).flatten(1)
    return NetworkInvariants(torch.cat(layers, dim=2), torch.cat(answers, dim=1), drawn)


def layer_invariants(
    responses: Tensor, sizes: Float[Tensor, "b neurons"], read_sizes: Float[Tensor, "b neurons"]
) -> NamedNumbers:
    """Return the invariants of a hidden layer's responses.

    Args:
        responses: [b, n, neurons] to n inputs, or maps [b, n, neurons, height, width].
        sizes: factors [b, neurons] that free responses of scales.
        read_sizes: the same times the norm of the weights that read them.

    Returns:
        How the signal spreads over inputs, positions and directions; its size, as a logarithm; and of the neurons, as
        mean and deviation: their shares of it, how much of a neuron's response is constant, how heavy its tails are,
        how often it is beyond its mean size, how often it is silent, and its own size.
    """
    seen = responses.flatten(3) if responses.ndim > 3 else responses[..., None]  # [b, n, neurons, positions]
    signal = seen.transpose(2, 3) * read_sizes[:, None, None]  # [b, n, positions, neurons]
    values = signal.flatten(1, 2)
    power = values.square().mean(1)  # [b, neurons]
    total = power.sum(1, keepdim=True)
    unit = values / torch.where(power > 0, power, 1.0).sqrt()[:, None]
    of_neurons = {
        "share": power / torch.where(total > 0, total, 1.0) * power.shape[1],
        "constant": unit.mean(1).square(),
        "size": unit.abs().mean(1),
        "tails": unit.square().square().mean(1).log1p(),
        "beyond": (unit.abs() > 1).to(unit.dtype).mean(1),
        "silent": (unit.abs() < 1e-3).to(unit.dtype).mean(1),
        "own_size": torch.log(seen.square().mean((1, 3)).sqrt() * sizes + _SMALL),
    }
    over_neurons: NamedNumbers = {}
    for name, numbers in of_neurons.items():
        over_neurons[f"{name}_mean"] = numbers.mean(1)
        over_neurons[f"{name}_deviation"] = numbers.std(1, correction=0)
    scale = total.sqrt()[..., None, None]
    spread = signal_invariants(signal / torch.where(scale > 0, scale, 1.0))
    return {**prefixed("signal", spread), "log_size": torch.log(total[:, 0] + _SMALL), **over_neurons}


def _answer(outputs: Float[Tensor, "b n outputs"], is_field: bool) -> NamedNumbers:
    """Return what the outputs tell without telling classes apart, or how an INR's values spread."""
    if not is_field:
        return answer_invariants(outputs)
    values = outputs.flatten(1)
    return {"mean": values.mean(1), "deviation": values.std(1, correction=0)}


@lru_cache(maxsize=1)
def _layer_names() -> list[str]:
    return list(layer_invariants(torch.zeros(1, 1, 1), torch.ones(1, 1), torch.ones(1, 1)))


@lru_cache(maxsize=2)
def _answer_names(is_field: bool) -> list[str]:
    return list(_answer(torch.zeros(1, 1, 1), is_field))


@lru_cache(maxsize=8)
def signals(spec: NetworkSpec) -> list[Tensor]:
    """Return the families of inputs [n, ...] for networks of a spec: the same ones for every network.

    Raises:
        SpecError: no image has the size that flattened maps need.
    """
    inputs = spec.sizes[0]
    if spec.convolutions:
        size = image_side(spec)
        return [family[:_IMAGES] for family in random_images(inputs, (size, size))]
    if is_field(spec):
        line = torch.linspace(-1, 1, COORDINATES[inputs])
        return [torch.cartesian_prod(*[line] * inputs).view(-1, inputs)]
    return [torch.randn(4 * PROBES, inputs, generator=make_generator(0, "probes", "vectors"))]


def _points_of(spec: NetworkSpec) -> int:
    """Return the responses of a neuron to an input that are kept: the positions of the largest map."""
    if is_field(spec):
        return max(1, COORDINATES[spec.sizes[0]] ** spec.sizes[0] // PROBES)
    return max(size * size for size in _map_sizes(spec, image_side(spec))) if spec.convolutions else 4


def _map_sizes(spec: NetworkSpec, size: int) -> Iterator[int]:
    """Yield the side of the square map after each convolution of an image of a size; below 1 where none is left."""
    for layer in range(spec.convolutions):
        kernel = max(spec.kernels[layer] or (1, 1))
        stride, padding = (
            values[layer] if values else rest for values, rest in ((spec.strides, 1), (spec.paddings, 0))
        )
        size = (size + 2 * padding - kernel) // stride + 1
        yield size


def image_side(spec: NetworkSpec) -> int:
    """Return the side of the images that networks read: what flattened maps need, or 28 or more."""
    for size in range(1 if spec.flattened > 1 else _IMAGE, _LARGEST_IMAGE + 1):
        *_, last = sizes = list(_map_sizes(spec, size))
        if min(sizes) >= 1 and (spec.flattened == 1 or last * last == spec.flattened):
            return size
    raise SpecError(
        f"networks that flatten maps of {spec.flattened} numbers, expected the square map of some square image"
    )
