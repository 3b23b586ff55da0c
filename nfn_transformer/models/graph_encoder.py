"""An encoder for the whole network as the graph of its computation (`features.graph`)."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from nfn_transformer.features.graph import ComputationGraph
from nfn_transformer.layers.graph_layers import GraphLayer, MessageLayer, RelationalAttentionLayer
from nfn_transformer.models.branches import FlatBranch, readout_head
from nfn_transformer.models.config import GRAPH_HEADS, ModelConfig
from nfn_transformer.weights.containers import TransformerWeights

_LAYERS: dict[str, Callable[[int, bool], GraphLayer]] = {
    "gnn": MessageLayer,
    "attention": partial(RelationalAttentionLayer, heads=GRAPH_HEADS),
}

# As many networks are computed at once as have so many numbers at their edges. On a CPU the tensors of one model take
# 16 MiB then in float32, keys with values 32 MiB: beyond, the C library asks the system for fresh memory each time
# (`training.host_memory`).
_NUMBERS_AT_ONCE = {"cpu": 1 << 22}
_NUMBERS_AT_ONCE_ELSEWHERE = 1 << 27


class SetLift(nn.Module):
    """A number x of a set s of nodes or edges to d numbers u_s x + v_s.

    Args:
        sizes: of the sets, which follow each other.
        dim: d.
    """

    def __init__(self, sizes: list[int], dim: int):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.randn(len(sizes), dim)) for _ in range(2))
        self._sizes = sizes

    def forward(self, numbers: Tensor) -> Tensor:
        """[n, b] to [n, b, d]."""
        # Set by set: gradients of indices would be added up in any order on a CPU, each time with other last digits.
        parts = zip(self.shift, self.scale, numbers[..., None].split(self._sizes), strict=True)
        return torch.cat([torch.addcmul(shift, scale, part) for shift, scale, part in parts])


class GraphEncoder(FlatBranch):
    """Whole networks to numbers [b, out], by layers on the graph and the mean of each set of nodes.

    It is invariant to permuting heads, hidden neurons, and coordinates within a head, after an attention and after a
    block; to nothing else of the complete group.

    Args:
        example: a network's weights, of any numbers.
        config: layers, their width and kind; dropout and scales.

    Raises:
        SpecError: parts of the network have different widths D.
    """

    def __init__(self, example: TransformerWeights, config: ModelConfig):
        graph, dim, count = ComputationGraph(example), config.graph_dim, config.graph_layers
        node_sizes = [nodes.size for nodes in graph.nodes]
        edge_sizes = [edges.size for edges in graph.edges]
        super().__init__(_numbers, [*node_sizes, *edge_sizes], config)
        self._node_sizes = node_sizes
        told_apart = [torch.full((nodes.size,), nodes.told_apart) for nodes in graph.nodes]
        self.register_buffer("told_apart", torch.cat(told_apart).nonzero()[:, 0], persistent=False)
        self.register_buffer("edge_index", graph.edge_index, persistent=False)
        self.node_lift, self.edge_lift = SetLift(node_sizes, dim), SetLift(edge_sizes, dim)
        self.meanings = nn.Parameter(torch.randn(len(self.told_apart), 1, dim))
        self.layers = nn.ModuleList(_LAYERS[config.graph_conv](dim, place == count - 1) for place in range(count))
        self.norm = nn.LayerNorm(dim)
        self.head = readout_head(len(node_sizes) * dim, config.num_out_encoder, config.dropout)

    def from_features(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """The numbers [b, N + E] of `ComputationGraph` to [b, out]."""
        numbers = _NUMBERS_AT_ONCE.get(features.device.type, _NUMBERS_AT_ONCE_ELSEWHERE)
        at_once = max(1, numbers // self.meanings.shape[-1] // self.edge_index.shape[1])
        count = max(1, math.ceil(len(features) / at_once))
        of_parts = [None] * count if keys is None else keys.chunk(count)
        parts = zip(features.chunk(count), of_parts, strict=False)  # `chunk` may make fewer
        return torch.cat([self._encode(*part) for part in parts])

    def _encode(self, features: Tensor, keys: Tensor | None) -> Tensor:
        of_nodes, of_edges = self.scaled(features).T.split([sum(self._node_sizes), self.edge_index.shape[1]])
        nodes, edges = self.node_lift(of_nodes), self.edge_lift(of_edges)  # [N, b, d], [E, b, d]
        nodes = nodes.index_add(0, self.told_apart, self.meanings.expand(-1, nodes.shape[1], -1))
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, self.edge_index)
        means = [of_set.mean(0) for of_set in self.norm(nodes).split(self._node_sizes)]
        return self.head(torch.cat(means, dim=1), keys)


def _numbers(weights: TransformerWeights) -> Tensor:
    return ComputationGraph(weights).numbers()
