"""Layers on graphs: against their formulas edge by edge, and whatever the order of nodes and edges."""

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.layers.graph_layers import GraphLayer, MessageLayer, RelationalAttentionLayer

NODES, EDGES, BATCH, DIM, HEADS = 7, 15, 3, 8, 2
KINDS = ["gnn", "attention"]


def _layer(kind: str, last: bool) -> GraphLayer:
    torch.manual_seed(1)
    layer = MessageLayer(DIM, last) if kind == "gnn" else RelationalAttentionLayer(DIM, last, HEADS)
    return layer.double()


def _graph(generator):
    nodes, edges = (
        torch.randn(count, BATCH, DIM, generator=generator, dtype=torch.float64) for count in (NODES, EDGES)
    )
    pairs = torch.cartesian_prod(torch.arange(NODES - 1), torch.arange(NODES - 1))  # the last node has no edge
    return nodes, edges, pairs[torch.randperm(len(pairs), generator=generator)[:EDGES]].T


def _hidden(layer, x, e, s, t):
    return gelu(layer.of_edge(e) + layer.of_source(x[s]) + layer.of_target(x[t]))


def _message_of(layer, x, e, s, t, towards_target):
    other = layer.of_source(x[s]) if towards_target else layer.of_target(x[t])
    return _hidden(layer, x, e, s, t) * (1 + other)


def _attended(part, query, others, given):
    """Return one node's message from its edges: others [m, d] at their far ends, given [m, d] of themselves."""
    if not len(others):
        return torch.zeros(DIM, dtype=torch.float64)
    keys, values = (part.of_nodes(others) + part.of_edges(given)).split(DIM, dim=1)
    found, size = [], DIM // HEADS
    for head in range(HEADS):
        of_head = slice(head * size, (head + 1) * size)
        scores = keys[:, of_head] @ part.queries(query)[of_head] / size**0.5
        found.append(scores.softmax(0) @ values[:, of_head])
    return torch.cat(found)


def _by_hand(layer: GraphLayer, kind: str, nodes, edges, edge_index):
    new_nodes, new_edges = nodes.clone(), edges.clone()
    normed = layer_norm(nodes, (DIM,), layer.norm.weight, layer.norm.bias)
    for b in range(BATCH):
        x, e = normed[:, b], edges[:, b]
        for v in range(NODES):
            sides = []
            for mine, other in ((1, 0), (0, 1)):  # edges that come in, and those that go out
                own = [k for k in range(EDGES) if edge_index[mine, k] == v]
                if kind == "gnn":
                    messages = [_message_of(layer, x, e[k], *edge_index[:, k], mine == 1) for k in own]
                    sides.append(torch.stack(messages).mean(0) if own else torch.zeros(DIM, dtype=torch.float64))
                else:
                    part = layer.incoming if mine == 1 else layer.outgoing
                    sides.append(_attended(part, x[v], x[edge_index[other, own]], e[own]))
            new_nodes[v, b] = nodes[v, b] + layer.node_update(torch.cat([x[v], *sides]))
        if layer.edge_update is not None:
            for k in range(EDGES):
                new_edges[k, b] = e[k] + layer.edge_update(_hidden(layer, x, e[k], *edge_index[:, k]))
    return new_nodes, new_edges


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_formulas(kind, last, generator):
    graph, layer = _graph(generator), _layer(kind, last)
    for found, expected in zip(layer(*graph), _by_hand(layer, kind, *graph), strict=True):
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_nodes_and_edges_is_kept_and_says_nothing(kind, generator):
    nodes, edges, edge_index = _graph(generator)
    layer, order = _layer(kind, last=False), torch.randperm(NODES, generator=generator)
    of_edges = torch.randperm(EDGES, generator=generator)
    before = layer(nodes, edges, edge_index)
    after = layer(nodes[order], edges[of_edges], order.argsort()[edge_index[:, of_edges]])
    assert relative_error(after[0], before[0][order]) < 1e-12
    assert relative_error(after[1], before[1][of_edges]) < 1e-12


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind, last, generator):
    layer = _layer(kind, last)
    nodes, edges = layer(*_graph(generator))
    (nodes.square().sum() + edges.square().sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
