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

All x have passed a LayerNorm. A, F, G and H have biases. Each weight of each network is an edge: time grows with
E b d^2, and the memory for gradients with E b d per layer.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import gelu

from nfn_transformer.layers.graph_library import scatter, softmax


def mean_messages(
    y: Float[Tensor, "N b d"], m: Float[Tensor, "E b d"], edge_index: Int64[Tensor, "2 E"]
) -> Float[Tensor, "N b d"]:
    """Return the mean over a node's edges, from source to target, of m (1 + y), y of the source; 0 without edges."""
    source, target = edge_index
    messages = torch.addcmul(m, m, y.index_select(0, source))
    return scatter(_exact(messages), target, dim=0, dim_size=len(y), reduce="mean")


def _exact(messages: Tensor) -> Tensor:
    """Return messages of half precision in single precision: many of them are added up."""
    return messages.to(torch.promote_types(messages.dtype, torch.float32))


class RelationalAttention(nn.Module):
    """Attention of each node to its edges and to the nodes at their other ends.

    Args:
        dim: d, a multiple of `heads`.
        heads: each attends by d / heads numbers.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(dim, dim, bias=False)
        self.of_nodes = nn.Linear(dim, 2 * dim, bias=False)  # keys and values
        self.of_edges = nn.Linear(dim, 2 * dim, bias=False)

    def forward(
        self, nodes: Float[Tensor, "N b d"], edges: Float[Tensor, "E b d"], edge_index: Int64[Tensor, "2 E"]
    ) -> Float[Tensor, "N b d"]:
        """Return the messages that nodes attend to along edges from source to target."""
        (source, target), by_head = edge_index, (self.heads, -1)
        given = self.of_nodes(nodes).index_select(0, source) + self.of_edges(edges)
        keys, values = given.chunk(2, dim=-1)
        products = (self.queries(nodes).index_select(0, target) * keys).unflatten(-1, by_head).sum(-1)  # [E, b, heads]
        scores = _exact(products) / math.sqrt(keys.shape[-1] // self.heads)
        attention = softmax(scores, target, num_nodes=len(nodes))
        messages = (values.unflatten(-1, by_head) * attention[..., None]).flatten(-2)
        return scatter(_exact(messages), target, dim=0, dim_size=len(nodes), reduce="sum")


class GraphLayer(nn.Module):
    """Layer from nodes [N, b, d] and edges [E, b, d] to the same shapes.

    Args:
        dim: d.
        last: no layer follows, so that edges need not change.
    """

    def __init__(self, dim: int, last: bool):
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim)
        self.of_edge, self.of_source, self.of_target = (nn.Linear(dim, dim, bias=bias) for bias in (True, False, False))
        self.edge_update = None if last else nn.Linear(dim, dim)
        self.node_update = nn.Sequential(nn.Linear(3 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(
        self, nodes: Float[Tensor, "N b d"], edges: Float[Tensor, "E b d"], edge_index: Int64[Tensor, "2 E"]
    ) -> tuple[Float[Tensor, "N b d"], Float[Tensor, "E b d"]]:
        """Return nodes and edges after the layer, with edges from source to target."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return width and symmetry, as `print(module)` shows them."""
        return f"{self.dim}, symmetry: nodes and edges permuted"

    def _hidden(self, source: Tensor, target: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        """Return the hidden numbers [E, b, d] of edges, from each edge and its two ends."""
        of_source, of_target = edge_index
        return gelu(self.of_edge(edges) + source.index_select(0, of_source) + target.index_select(0, of_target))


class MessageLayer(GraphLayer):
    """Graph layer by messages."""

    def forward(
        self, nodes: Float[Tensor, "N b d"], edges: Float[Tensor, "E b d"], edge_index: Int64[Tensor, "2 E"]
    ) -> tuple[Float[Tensor, "N b d"], Float[Tensor, "E b d"]]:
        """Return nodes and edges after the layer, with edges from source to target."""
        normed = self.norm(nodes)
        source, target = self.of_source(normed), self.of_target(normed)
        hidden = self._hidden(source, target, edges, edge_index)
        incoming, outgoing = (
            mean_messages(source, hidden, edge_index),
            mean_messages(target, hidden, edge_index.flip(0)),
        )
        nodes = nodes + self.node_update(torch.cat([normed, incoming, outgoing], dim=-1))
        return nodes, edges if self.edge_update is None else edges + self.edge_update(hidden)


class RelationalAttentionLayer(GraphLayer):
    """Graph layer by relational attention with `heads`, of which d is a multiple."""

    def __init__(self, dim: int, last: bool, heads: int):
        super().__init__(dim, last)
        self.incoming, self.outgoing = RelationalAttention(dim, heads), RelationalAttention(dim, heads)
        if last:
            del self.of_edge, self.of_source, self.of_target  # drawn all the same: random streams stay

    def forward(
        self, nodes: Float[Tensor, "N b d"], edges: Float[Tensor, "E b d"], edge_index: Int64[Tensor, "2 E"]
    ) -> tuple[Float[Tensor, "N b d"], Float[Tensor, "E b d"]]:
        """Return nodes and edges after the layer, with edges from source to target."""
        normed = self.norm(nodes)
        incoming, outgoing = self.incoming(normed, edges, edge_index), self.outgoing(normed, edges, edge_index.flip(0))
        nodes = nodes + self.node_update(torch.cat([normed, incoming, outgoing], dim=-1))
        if self.edge_update is None:
            return nodes, edges
        hidden = self._hidden(self.of_source(normed), self.of_target(normed), edges, edge_index)
        return nodes, edges + self.edge_update(hidden)
