"""Layers on graphs whose nodes and edges both carry numbers, by messages (gnn) or by relational attention (attention).

After Neural Graphs (Kofinas et al. 2024, arXiv 2403.12143): there PNA with edges that scale and shift messages, and the
Relational Transformer (Diao and Loynd 2023, arXiv 2210.05062). Here messages run along an edge and against it, with
maps of their own, and all networks of a batch share one graph:

    nodes x [N, b, d], edges e [E, b, d], from s to t         [x, y]: side by side

    messages    m_st = GELU(A e_st + B x_s + C x_t)
                in_t = mean over s of m_st (1 + B x_s)        out_s = mean over t of m_st (1 + C x_t)
                e_st += F m_st
    attention   in_t = sum over s of a_st (V x_s + V' e_st), by heads of c numbers, with
                a_st = softmax over s of Q x_t . (K x_s + K' e_st) / sqrt(c)
                out_s likewise over t, with maps of its own;  e_st += F GELU(A e_st + B x_s + C x_t)
    both        x_v += G GELU(H [x_v, in_v, out_v])

The x that maps see have passed a LayerNorm. Memory and time grow with E b d: with each single weight of each network.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from nfn_transformer.layers.graph_library import MessagePassing, softmax


class MeanMessages(MessagePassing):
    """The mean over a node's edges of m (1 + y), with y of the node at the other end.

    Shapes: y [N, b, d], m [E, b, d], edge_index [2, E] from source to target, to [N, b, d].
    """

    def __init__(self):
        super().__init__(aggr="mean", node_dim=0)

    def forward(self, y: Tensor, m: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, y=y, m=m)

    def message(self, y_j: Tensor, m: Tensor) -> Tensor:
        return torch.addcmul(m, m, y_j)


class AttendedMessages(MessagePassing):
    """Relational attention of each node to its edges and the nodes at their other ends.

    Args:
        dim: d, a multiple of `heads`.
        heads: each attends by d / heads numbers.

    Shapes: as of `MeanMessages`.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__(aggr="sum", node_dim=0)
        self.heads = heads
        self.queries = nn.Linear(dim, dim, bias=False)
        self.of_nodes = nn.Linear(dim, 2 * dim, bias=False)  # keys and values
        self.of_edges = nn.Linear(dim, 2 * dim, bias=False)

    def forward(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(
            edge_index, query=self.queries(nodes), given=self.of_nodes(nodes), more=self.of_edges(edges)
        )

    def message(self, query_i: Tensor, given_j: Tensor, more: Tensor, index: Tensor, dim_size: int) -> Tensor:
        heads = (self.heads, -1)
        keys, values = (given_j + more).chunk(2, dim=-1)
        products = (query_i * keys).unflatten(-1, heads).sum(-1)  # [E, b, heads]
        attention = softmax(products / math.sqrt(keys.shape[-1] // self.heads), index, num_nodes=dim_size)
        return (values.unflatten(-1, heads) * attention[..., None]).flatten(-2)


class GraphLayer(nn.Module):
    """One layer: nodes [N, b, d] and edges [E, b, d] to the same shapes.

    Args:
        dim: d.
        last: whether no layer follows, so that edges need not change.
    """

    def __init__(self, dim: int, last: bool):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.of_edge, self.of_source, self.of_target = (nn.Linear(dim, dim, bias=bias) for bias in (True, False, False))
        self.edge_update = None if last else nn.Linear(dim, dim)
        self.node_update = nn.Sequential(nn.Linear(3 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _hidden(self, source: Tensor, target: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        """What an edge makes of itself and its two ends: [E, b, d]."""
        of_source, of_target = edge_index
        return gelu(self.of_edge(edges) + source.index_select(0, of_source) + target.index_select(0, of_target))


class MessageLayer(GraphLayer):
    """See `GraphLayer`; by messages."""

    def __init__(self, dim: int, last: bool):
        super().__init__(dim, last)
        self.mean = MeanMessages()

    def forward(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.norm(nodes)
        source, target = self.of_source(seen), self.of_target(seen)
        hidden = self._hidden(source, target, edges, edge_index)
        incoming, outgoing = self.mean(source, hidden, edge_index), self.mean(target, hidden, edge_index.flip(0))
        nodes = nodes + self.node_update(torch.cat([seen, incoming, outgoing], dim=-1))
        return nodes, edges if self.edge_update is None else edges + self.edge_update(hidden)


class RelationalAttentionLayer(GraphLayer):
    """See `GraphLayer`; by relational attention with `heads`, of which d is a multiple."""

    def __init__(self, dim: int, last: bool, heads: int):
        super().__init__(dim, last)
        self.incoming, self.outgoing = AttendedMessages(dim, heads), AttendedMessages(dim, heads)
        if last:
            self.of_edge = self.of_source = self.of_target = None

    def forward(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.norm(nodes)
        incoming, outgoing = self.incoming(seen, edges, edge_index), self.outgoing(seen, edges, edge_index.flip(0))
        nodes = nodes + self.node_update(torch.cat([seen, incoming, outgoing], dim=-1))
        if self.edge_update is None:
            return nodes, edges
        hidden = self._hidden(self.of_source(seen), self.of_target(seen), edges, edge_index)
        return nodes, edges + self.edge_update(hidden)
