"""Feed-forward networks as layered graphs: neurons or feature maps are nodes, weights are edges, biases are on nodes.

Edges join neighbouring layers alone. Networks of several widths and depths have one form: hidden layers are stacked,
and what a network does not have is NaN. Kernels are flattened ring by ring from their centre, so that a smaller kernel
is the first part of a larger one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import NetworkWeights, TensorTree
from nfn_transformer.weights.spec import ACTIVATIONS, NetworkSpec

LARGEST_KERNEL = 7
"""Side of the largest kernel that networks of another size may have than those of the training split."""


@dataclass(frozen=True)
class LayeredGraph(TensorTree):
    """Graphs of b networks with up to H hidden layers of up to n nodes, c numbers on an edge."""

    first: Float[Tensor, "*m b n inputs c"]
    """Edges from the inputs."""
    middle: Float[Tensor, "*m b pairs n n c"]
    """Edges from each hidden layer to the next one, H - 1 pairs."""
    last: Float[Tensor, "*m b outputs n c"]
    """Edges to the outputs."""
    hidden: Float[Tensor, "*m b H n"]
    """Biases of hidden nodes."""
    outputs: Float[Tensor, "*m b outputs"]
    """Biases of the outputs."""
    activation: Float[Tensor, "*m b activations"]
    """1 for the activation among ACTIVATIONS, 0 for others."""


def most_edge_numbers(spec: NetworkSpec) -> int:
    """Return the most numbers on an edge of the graphs that have one form with those of a spec."""
    averages = spec.convolutions > 0 and spec.flattened == 1
    return max(_side(spec), LARGEST_KERNEL) ** 2 if averages else max(_side(spec) ** 2, spec.channels)


def _side(spec: NetworkSpec) -> int:
    """Return the side of the square that holds all kernels, an odd number."""
    return max(max(kernel or (1, 1)) for kernel in spec.kernels) | 1


def are_joinable(spec: NetworkSpec, other: NetworkSpec) -> bool:
    """Return whether graphs of networks of `other` have one form with those of `spec`."""
    first, second = ((each.sizes[0], each.sizes[-1], each.flattened, each.convolutions > 0) for each in (spec, other))
    return first == second and other.layers > 1 and most_edge_numbers(other) <= most_edge_numbers(spec)


def read_layered_graph(weights: NetworkWeights, scaled: bool = False) -> LayeredGraph:
    """Return the graphs of b networks of one spec.

    Weights are multiplied by the root of their fan-in, for sine by omega: initialisations then have one size.

    Args:
        weights: of b networks.
        scaled: the weights have a size of 1 already.

    Raises:
        SpecError: the networks have no hidden layer.
    """
    spec = weights.spec
    if spec.layers < 2:
        raise SpecError(f"networks of sizes {spec.sizes}, expected a hidden layer")
    unit = spec.omega if spec.activation == "sine" and not scaled else 1.0
    flat = [_flat(matrix, kernel is not None) for matrix, kernel in zip(weights.weights, spec.kernels, strict=True)]
    numbers, widest, empty = max(matrix.shape[3] for matrix in flat), max(spec.sizes[1:-1]), float("nan")
    edges = [
        pad(matrix, (0, numbers - matrix.shape[3])) * (1.0 if scaled else unit * original[0, 0].numel() ** 0.5)
        for matrix, original in zip(flat, weights.weights, strict=True)
    ]
    spare = [widest - size for size in spec.sizes[1:-1]]
    between = zip(edges[1:-1], spare, spare[1:], strict=False)
    middle = [pad(edge, (0, 0, 0, before, 0, after), value=empty) for edge, before, after in between]
    hidden = [pad(bias * unit, (0, missing), value=empty) for bias, missing in zip(weights.biases, spare, strict=False)]
    activation = torch.zeros(weights.batch, len(ACTIVATIONS)).to(weights.biases[0])
    activation[:, ACTIVATIONS.index(spec.activation)] = 1
    return LayeredGraph(
        pad(edges[0], (0, 0, 0, 0, 0, spare[0]), value=empty),
        torch.stack(middle, dim=1) if middle else edges[0].new_zeros(weights.batch, 0, widest, widest, numbers),
        pad(edges[-1], (0, 0, 0, spare[-1]), value=empty),
        torch.stack(hidden, dim=1),
        weights.biases[-1] * unit,
        activation,
    )


def _flat(matrix: Tensor, is_kernel: bool) -> Float[Tensor, "b n m c"]:
    """Return weights [b, n, m, ...] with all numbers of a pair of nodes in one dimension, kernels ring by ring."""
    if not is_kernel:
        return matrix.flatten(3) if matrix.ndim > 3 else matrix[..., None]
    side = max(matrix.shape[3:]) | 1
    before = [(side - 1) // 2 - (size - 1) // 2 for size in matrix.shape[3:]]
    after = [side - size - start for size, start in zip(matrix.shape[3:], before, strict=True)]
    square = pad(matrix, (before[1], after[1], before[0], after[0]))
    line = (torch.arange(side, device=matrix.device) - (side - 1) // 2).abs()
    rings = torch.maximum(line[:, None], line).flatten()
    return square.flatten(3)[..., torch.argsort(rings, stable=True)]
