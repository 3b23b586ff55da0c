"""Encoder of the whole network as the graph of its computation (`features.graph`)."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from nfn_transformer.features.graph import ComputationGraph
from nfn_transformer.models.branch import FlatBranch, example_weights, readout_head
from nfn_transformer.models.encoders.graph import HEADS, GraphConfig
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec

# Networks are computed at once up to this many numbers at their edges. On a CPU the tensors of one model then take
# 16 MiB in float32, keys with values 32 MiB. Beyond that, the C library asks the system for fresh memory each time
# (`training.step.keep_freed_memory`).
_NUMBERS_AT_ONCE = {"cpu": 1 << 22}
_NUMBERS_AT_ONCE_ELSEWHERE = 1 << 27


class SetLift(nn.Module):
    """Map from a number x of a set s of nodes or edges to d numbers u_s x + v_s.

    Args:
        sizes: of the sets, which follow each other.
        dim: d.
    """

    def __init__(self, sizes: list[int], dim: int):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.randn(len(sizes), dim)) for _ in range(2))
        self._sizes = sizes

    def forward(self, numbers: Tensor) -> Tensor:
        """Map numbers [n, b] to [n, b, d]."""
        # Set by set: gradients of indices would be added up in any order on a CPU, each time with other last digits.
        parts = zip(self.shift, self.scale, numbers[..., None].split(self._sizes), strict=True)
        return torch.cat([torch.addcmul(shift, scale, part) for shift, scale, part in parts])


class GraphEncoder(FlatBranch):
    """Map from whole networks to numbers [b, out], by layers on the graph and the mean of each set of nodes.

    The encoder is invariant to permuting heads, hidden neurons, and coordinates within a head, after an attention and
    after a block. It is invariant to no other part of the complete group.

    Args:
        spec: the networks' sizes.
        config: layers, their width and kind; dropout and scales.

    Raises:
        SpecError: parts of the network have different widths D.
    """

    edge_index: Tensor
    told_apart: Tensor

    def __init__(self, spec: TransformerSpec, config: GraphConfig):
        # The library of these layers takes seconds to import.
        from nfn_transformer.layers.graph_layers import MessageLayer, RelationalAttentionLayer

        graph = ComputationGraph(cast(TransformerWeights, example_weights(spec)))
        dim, count = config.graph_dim, config.graph_layers
        node_sizes = [nodes.size for nodes in graph.nodes]
        edge_sizes = [edges.size for edges in graph.edges]
        super().__init__([*node_sizes, *edge_sizes], config)
        self._node_sizes = node_sizes
        told_apart = [torch.full((nodes.size,), nodes.told_apart) for nodes in graph.nodes]
        self.register_buffer("told_apart", torch.cat(told_apart).nonzero()[:, 0], persistent=False)
        self.register_buffer("edge_index", graph.edge_index, persistent=False)
        self.node_lift, self.edge_lift = SetLift(node_sizes, dim), SetLift(edge_sizes, dim)
        self.meanings = nn.Parameter(torch.randn(len(self.told_apart), 1, dim))
        layers = []
        for index in range(count):
            is_last = index == count - 1
            attends = config.graph_conv == "attention"
            layers.append(
                RelationalAttentionLayer(dim, is_last, heads=HEADS) if attends else MessageLayer(dim, is_last)
            )
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.head = readout_head(len(node_sizes) * dim, config.outputs, config.dropout)

    def featurize(self, weights: TransformerWeights) -> Tensor:
        """Return the numbers [b, N + E] of the networks' graphs."""
        return ComputationGraph(weights).numbers()

    def from_features(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Map the numbers [b, N + E] of `ComputationGraph` to [b, out]."""
        numbers = _NUMBERS_AT_ONCE.get(features.device.type, _NUMBERS_AT_ONCE_ELSEWHERE)
        at_once = max(1, numbers // self.meanings.shape[-1] // self.edge_index.shape[1])
        count = max(1, math.ceil(len(features) / at_once))
        of_parts = [None] * count if keys is None else keys.chunk(count)
        parts = zip(features.chunk(count), of_parts, strict=False)  # `chunk` may make fewer
        return torch.cat([self._encode(*part) for part in parts])

    def _encode(self, features: Tensor, keys: Tensor | None) -> Tensor:
        of_nodes, of_edges = self.scale(features).T.split([sum(self._node_sizes), self.edge_index.shape[1]])
        nodes, edges = self.node_lift(of_nodes), self.edge_lift(of_edges)  # [N, b, d], [E, b, d]
        nodes = nodes.index_add(0, self.told_apart, self.meanings.expand(-1, nodes.shape[1], -1))
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, self.edge_index)
        means = [of_set.mean(0) for of_set in self.norm(nodes).split(self._node_sizes)]
        return self.head(torch.cat(means, dim=1), keys)
