"""Encoder of feed-forward networks as layered graphs (`features.layered_graph`; Kofinas et al. 2024, arXiv 2403.12143).

Neurons are nodes with biases, weights are edges, inputs and outputs have learned positions. Signs and phases are
removed first (`groups.network`). With probes, a node also carries what its neuron answers to learned inputs.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nfn_transformer.features.layered_graph import LayeredGraph, are_joinable, most_edge_numbers, read_layered_graph
from nfn_transformer.features.network_invariants import signals
from nfn_transformer.groups.network import canonical_form
from nfn_transformer.layers.bilinear import Nodes, pooled_nodes
from nfn_transformer.layers.layered_graph_layers import Block, LayeredGraphLayer
from nfn_transformer.models.branch import Branch, network_head
from nfn_transformer.models.encoders.graph import HEADS, GraphConfig
from nfn_transformer.models.weight_space_editors import Editor, shrink
from nfn_transformer.weights.containers import NetworkWeights, TensorTree
from nfn_transformer.weights.feed_forward_pass import network_responses
from nfn_transformer.weights.spec import ACTIVATIONS, NetworkSpec


@dataclass(frozen=True)
class GraphFeatures(TensorTree):
    """Graphs of b networks."""

    graph: LayeredGraph
    """Biases and weights."""
    networks: NetworkWeights | None
    """Networks that answer to probes; None without probes."""


class GraphTrunk(nn.Module):
    """Map of graphs to numbers of all nodes and edges.

    Args:
        spec: of the networks; the parameters' shapes depend on its inputs, outputs, and the presence of convolutions.
        config: layers, their width and kind, probes.
        keeps_edges: the last layer changes edges too.

    Raises:
        SpecError: with probes, no image has the size that flattened maps need.
    """

    def __init__(self, spec: NetworkSpec, config: GraphConfig, keeps_edges: bool = False):
        super().__init__()
        d, count, numbers = config.graph_dim, config.graph_layers, most_edge_numbers(spec)
        heads = HEADS if config.graph_conv == "attention" else 0
        self.kernels = nn.ParameterList(torch.randn(numbers, d) * numbers**-0.5 for _ in range(3))
        self.kinds = nn.ParameterList(torch.randn(d) for _ in range(3))
        self.positions = nn.ParameterList(torch.randn(count, d) for count in (spec.sizes[0], spec.sizes[-1]))
        self.biases = nn.Parameter(torch.randn(2, d))
        self.places = nn.Linear(3 + len(ACTIVATIONS), d)
        self.layers = nn.ModuleList(
            LayeredGraphLayer(d, index == count - 1 and not keeps_edges, heads) for index in range(count)
        )
        self.norm = nn.LayerNorm(d)
        self.probes = self.answers = None
        if config.graph_probes:
            examples = torch.cat(signals(spec))
            chosen = torch.randint(len(examples), (config.graph_probes,))
            self.probes = nn.Parameter(examples[chosen] + 0.01 * torch.randn(config.graph_probes, *examples.shape[1:]))
            self.answers = nn.Linear(config.graph_probes, d, bias=False)

    def forward(self, features: GraphFeatures) -> tuple[Nodes, tuple[Block, Block, Block], Tensor, Tensor]:
        """Return nodes and edges, 1 for each last hidden layer [b, H], and which hidden nodes exist [b, H, n]."""
        there = ~features.graph.hidden.isnan()
        depth, number = there.any(2).sum(1, keepdim=True), torch.arange(1, there.shape[1] + 1, device=there.device)
        is_last = (number == depth).to(features.graph.outputs.dtype)
        nodes = self.first_nodes(features, number / (depth + 1), is_last)
        blocks = self.first_blocks(features.graph)
        for layer in self.layers:
            nodes, blocks = layer(nodes, blocks, is_last)
        return Nodes(*map(self.norm, nodes)), blocks, is_last, there

    def first_nodes(self, features: GraphFeatures, place: Tensor, is_last: Tensor) -> Nodes:
        """Return the first numbers of all nodes: positions, places and activations, biases, and answers to probes."""
        graph = features.graph
        is_first = torch.zeros_like(is_last)
        is_first[:, 0] = 1
        activation = graph.activation[:, None].expand(-1, place.shape[1], -1)
        places = torch.stack([place.to(is_last.dtype), is_first, is_last], dim=-1)
        embedded = self.places(torch.cat([places, activation], dim=-1))[:, :, None]
        hidden = graph.hidden.nan_to_num(nan=0.0)[..., None] * self.biases[0] + embedded
        outputs = self.positions[1] + graph.outputs[..., None] * self.biases[1]
        inputs = self.positions[0].expand(len(outputs), -1, -1)
        if self.probes is None or self.answers is None or features.networks is None:
            return Nodes(inputs, hidden, outputs)
        *of_hidden, last = (
            (each if each.ndim == 3 else each.mean((-2, -1))).transpose(1, 2)  # [b, n_s, probes]
            for each in network_responses(self.probes, features.networks)
        )
        widest = hidden.shape[2]
        answers = [torch.nn.functional.pad(each, (0, 0, 0, widest - each.shape[1])) for each in of_hidden]
        return Nodes(inputs, hidden + self.answers(torch.stack(answers, dim=1)), outputs + self.answers(last))

    def first_blocks(self, graph: LayeredGraph) -> tuple[Block, Block, Block]:
        """Return the first numbers of all edges."""
        blocks = []
        for edges, kernel, kind in zip((graph.first, graph.middle, graph.last), self.kernels, self.kinds, strict=True):
            numbers = edges.nan_to_num(nan=0.0) @ kernel[: edges.shape[-1]] + kind
            blocks.append(Block(numbers, ~edges[..., 0].isnan()))
        return blocks[0], blocks[1], blocks[2]


class NetworkGraphEncoder(Branch):
    """Map of feed-forward networks of any depth and width to numbers [b, outputs].

    Args:
        spec, config: see `GraphTrunk`; besides, number of outputs and dropout.

    Raises:
        SpecError: with probes, no image has the size that flattened maps need.
    """

    def __init__(self, spec: NetworkSpec, config: GraphConfig):
        super().__init__()
        self.spec, self.trunk = spec, GraphTrunk(spec, config)
        self.head = network_head(5 * config.graph_dim, config.outputs, config.dropout)

    def featurize(self, weights: NetworkWeights) -> GraphFeatures:
        """Return the graphs of b networks without phases and signs."""
        form = canonical_form(weights).weights
        return GraphFeatures(read_layered_graph(form), None if self.trunk.probes is None else form)

    def supports(self, spec: NetworkSpec) -> bool:
        """Return whether networks have as many inputs and outputs, and convolutions if the own ones have some."""
        return self.trunk.probes is None and isinstance(spec, NetworkSpec) and are_joinable(self.spec, spec)

    def from_features(self, features: GraphFeatures, keys: Tensor | None = None) -> Tensor:
        """Map graphs to [b, outputs]."""
        nodes, _, is_last, there = self.trunk(features)
        return self.head(pooled_nodes(nodes, there, is_last), keys)


class NetworkGraphEditor(Editor):
    """Editor by the same layers: a change of each weight from its edge, of each bias from its node."""

    def __init__(self, spec: NetworkSpec, config: GraphConfig):
        super().__init__(spec)
        d = config.graph_dim
        self.trunk = GraphTrunk(spec, config, keeps_edges=True)
        self.of_edges = nn.ModuleList(nn.Linear(d, math.prod(trailing)) for trailing in spec.trailing)
        self.of_nodes = nn.ModuleList(nn.Linear(d, 1) for _ in spec.trailing)
        for layer in (*self.of_edges, *self.of_nodes):
            shrink(layer)

    def change(self, weights: NetworkWeights) -> NetworkWeights:
        """See `Editor`."""
        sizes = iter(self.sizes().unbind())
        networks = weights.map(lambda tensor: tensor * next(sizes))  # which answer to probes
        features = GraphFeatures(read_layered_graph(weights, scaled=True), networks)
        nodes, (first, middle, last), _, _ = self.trunk(features)
        hidden, edges = self.spec.sizes[1:-1], [first.edges, *middle.edges.unbind(1), last.edges]
        sides = list(itertools.pairwise((self.spec.sizes[0], *hidden, self.spec.sizes[-1])))
        matrices = [
            layer(edge[:, :rows, :columns]).view_as(matrix)
            for layer, edge, (columns, rows), matrix in zip(self.of_edges, edges, sides, weights.weights, strict=True)
        ]
        targets = [*(nodes.hidden[:, s, :n] for s, n in enumerate(hidden)), nodes.outputs]
        biases = [layer(target).squeeze(-1) for layer, target in zip(self.of_nodes, targets, strict=True)]
        return NetworkWeights(self.spec, tuple(matrices), tuple(biases))
