"""Encoder of feed-forward networks by messages that are linear in the weights (`layers.bilinear`).

Phases and positive scales are removed first (`groups.network`). Signs are not: the layers are exact to them, and no
form jumps where a bias is near 0. Where signs are no symmetry, as for ReLU, hidden nodes start with an odd constant,
which tells them apart.
"""

import math

import torch
from torch import Tensor, nn

from nfn_transformer.features.layered_graph import (
    LayeredGraph,
    are_joinable,
    most_edge_numbers,
    read_layered_graph,
)
from nfn_transformer.groups.network import SIGNED, canonical_form
from nfn_transformer.layers.bilinear import BilinearLayer, Edges, Nodes, pooled_nodes
from nfn_transformer.models.branch import Branch, network_head
from nfn_transformer.models.encoders.bilinear import BilinearConfig
from nfn_transformer.models.weight_space_editors import Editor, shrink
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.spec import ACTIVATIONS, NetworkSpec

_EDGE_NUMBERS = 8
"""Numbers into which those of a kernel are mapped."""


class BilinearTrunk(nn.Module):
    """Map of graphs to odd and even numbers of all nodes.

    Args:
        spec: of the networks; the parameters' shapes depend on its inputs, outputs, and the presence of convolutions.
        config: layers and their width.
    """

    is_odd: Tensor

    def __init__(self, spec: NetworkSpec, config: BilinearConfig):
        super().__init__()
        d, c = config.bilinear_dim, most_edge_numbers(spec)
        k = min(c, _EDGE_NUMBERS)
        self.kernels = nn.ParameterList(torch.randn(c, k) * c**-0.5 for _ in range(3 if c > 1 else 0))
        self.positions = nn.ParameterList(torch.randn(2, count, d) for count in (spec.sizes[0], spec.sizes[-1]))
        self.biases = nn.Parameter(torch.randn(3, d))  # of hidden nodes, of outputs, and the odd constant
        self.places = nn.Linear(3 + len(ACTIVATIONS), d)
        self.layers = nn.ModuleList(BilinearLayer(d, k) for _ in range(config.bilinear_layers))
        odd = torch.tensor([float(name in SIGNED) for name in ACTIVATIONS])
        self.register_buffer("is_odd", odd, persistent=False)

    def forward(self, features: LayeredGraph) -> tuple[Nodes, Nodes, Tensor, Tensor]:
        """Return odd and even numbers, 1 for each last hidden layer [b, H], and which hidden nodes exist [b, H, n]."""
        there = ~features.hidden.isnan()
        x, z, edges = self.start(features, there)
        squares = edges._replace(first=edges.first**2, middle=edges.middle**2, last=edges.last**2)
        for layer in self.layers:
            x, z = layer(edges, squares, x, z)
        return x, z, edges.is_last, there

    def start(self, features: LayeredGraph, there: Tensor) -> tuple[Nodes, Nodes, Edges]:
        """Return the first odd and even numbers of all nodes, and the edges."""
        kernels = iter(self.kernels)
        edges = [edge.nan_to_num(nan=0.0) for edge in (features.first, features.middle, features.last)]
        if len(self.kernels):
            edges = [edge @ kernel[: edge.shape[-1]] for edge, kernel in zip(edges, kernels, strict=True)]
        has_layer = there.any(2)  # [b, H]
        depth = has_layer.sum(1, keepdim=True)
        number = torch.arange(1, there.shape[1] + 1, device=there.device)
        is_last = (number == depth).to(edges[0].dtype)
        place = torch.stack([number / (depth + 1), is_last, (number == 1).expand_as(is_last)], dim=-1)
        activation = features.activation[:, None].expand(-1, there.shape[1], -1)
        even = self.places(torch.cat([place.to(activation.dtype), activation], dim=-1))[:, :, None]
        apart = 1 - features.activation @ self.is_odd  # [b]
        hidden = features.hidden.nan_to_num(nan=0.0)[..., None] * self.biases[0]
        x = Nodes(
            self.positions[0][0].expand(len(apart), -1, -1),
            hidden + apart[:, None, None, None] * self.biases[2],
            self.positions[1][0] + features.outputs[..., None] * self.biases[1],
        )
        z = Nodes(
            self.positions[0][1].expand(len(apart), -1, -1),
            even.expand(-1, -1, there.shape[2], -1),
            self.positions[1][1].expand(len(apart), -1, -1),
        )
        return x, z, Edges(edges[0], edges[1], edges[2], is_last, there.sum(2).clamp(min=1).to(is_last.dtype))


class BilinearEncoder(Branch):
    """Map of feed-forward networks of any depth and width to numbers [b, outputs].

    Args:
        spec, config: see `BilinearTrunk`; besides, number of outputs and dropout.
    """

    def __init__(self, spec: NetworkSpec, config: BilinearConfig):
        super().__init__()
        self.spec, d = spec, config.bilinear_dim
        self.trunk = BilinearTrunk(spec, config)
        self.pairs = nn.Linear(d, 2 * d, bias=False)
        self.readout = nn.Sequential(nn.LayerNorm(2 * d), nn.Linear(2 * d, d), nn.GELU())
        self.head = network_head(5 * d, config.outputs, config.dropout)

    def featurize(self, weights: NetworkWeights) -> LayeredGraph:
        """Return the graphs of b networks without phases and scales."""
        return read_layered_graph(canonical_form(weights, scales=True, signs=False).weights)

    def supports(self, spec: NetworkSpec) -> bool:
        """Return whether networks have as many inputs and outputs, and convolutions if the own ones have some."""
        return isinstance(spec, NetworkSpec) and are_joinable(self.spec, spec)

    def from_features(self, features: LayeredGraph, keys: Tensor | None = None) -> Tensor:
        """Map graphs to [b, outputs]."""
        x, z, is_last, there = self.trunk(features)
        read = Nodes(*(self._read(*numbers) for numbers in zip(x, z, strict=True)))
        return self.head(pooled_nodes(read, there, is_last), keys)

    def _read(self, x: Tensor, z: Tensor) -> Tensor:
        first, second = self.pairs(x).chunk(2, dim=-1)
        return self.readout(torch.cat([first * second, z], dim=-1))


class BilinearEditor(Editor):
    """Editor by the same messages.

    With learned maps A, B, C and others, changes of a weight w of s and t, and of the bias of t, are

    (A x_t) . (B x_s) + w (A' z_t) . (B' z_s)        C x_t
    """

    def __init__(self, spec: NetworkSpec, config: BilinearConfig):
        super().__init__(spec, removes_scales=True, removes_signs=False)
        d, counts = config.bilinear_dim, [math.prod(trailing) for trailing in spec.trailing]
        self.trunk = BilinearTrunk(spec, config)
        self.read_by = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in range(2 * spec.layers))
        self.last = nn.ModuleList(nn.Linear(d, count * d, bias=False) for count in (*counts, *counts))
        self.last_biases = nn.ModuleList(nn.Linear(d, 1, bias=False) for _ in counts)
        for layer in (*self.last, *self.last_biases):
            shrink(layer)

    def change(self, weights: NetworkWeights) -> NetworkWeights:
        """See `Editor`."""
        x, z, _, _ = self.trunk(read_layered_graph(weights, scaled=True))
        L, sizes = self.spec.layers, self.spec.sizes
        odd, even = (
            [of.inputs, *(of.hidden[:, s, :n] for s, n in enumerate(sizes[1:-1])), of.outputs] for of in (x, z)
        )
        matrices, biases = [], []
        for s, matrix in enumerate(weights.weights):
            new, factor = (
                torch.einsum(
                    "btcd,bsd->btsc", last(nodes[s + 1]).unflatten(-1, (-1, odd[0].shape[-1])), read_by(nodes[s])
                )
                / odd[0].shape[-1] ** 0.5
                for nodes, last, read_by in (
                    (odd, self.last[s], self.read_by[s]),
                    (even, self.last[L + s], self.read_by[L + s]),
                )
            )
            matrices.append(new.view_as(matrix) + factor.view_as(matrix) * matrix)
            biases.append(self.last_biases[s](odd[s + 1]).squeeze(-1))
        return NetworkWeights(self.spec, tuple(matrices), tuple(biases))
