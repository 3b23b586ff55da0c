"""Random feed-forward networks of several families of functions, and inputs for them."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.spec import NetworkSpec

SPECS = {
    "siren": NetworkSpec((2, 8, 6, 1), (None, None, None), activation="sine", omega=30.0, offset=0.5),
    "tanh mlp": NetworkSpec((3, 7, 5, 2), (None, None, None), activation="tanh"),
    "relu cnn": NetworkSpec((1, 4, 6, 5, 3), ((3, 3), (2, 2), (1, 1), None), strides=(2, 1, 1)),
    "tanh cnn": NetworkSpec(
        (2, 4, 5, 3), ((3, 3), None, None), activation="tanh", strides=(4,), paddings=(1,), flattened=4
    ),
    "relu with residuals": NetworkSpec(
        (1, 4, 6, 5, 3), ((3, 3), (3, 3), (3, 3), None), strides=(4, 1, 1), paddings=(1, 1, 1), residuals=(-1, 0, 1)
    ),
    "gelu cnn": NetworkSpec(
        (2, 4, 5, 3), ((3, 3), None, None), activation="gelu", strides=(4,), paddings=(1,), flattened=4
    ),
}


def random_networks(spec: NetworkSpec, batch: int, generator: torch.Generator) -> NetworkWeights:
    """Networks in float64 that pass their signals on; biases of sine neurons cover several periods."""

    def normal(*shape: int, size: float) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) * size

    weights, biases = [], []
    for (inputs, outputs), trailing in zip(pairwise(spec.sizes), spec.trailing, strict=True):
        size = 1.4 / math.sqrt(inputs * math.prod(trailing)) / spec.omega**0.5
        weights.append(normal(batch, outputs, inputs, *trailing, size=size))
        biases.append(normal(batch, outputs, size=6 / spec.omega if spec.activation == "sine" else 0.3))
    return NetworkWeights(spec, tuple(weights), tuple(biases))


def inputs_of(spec: NetworkSpec) -> Tensor:
    """Five inputs: images of 8 x 8 for convolutions."""
    shape = (spec.sizes[0], 8, 8) if spec.convolutions else (spec.sizes[0],)
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
