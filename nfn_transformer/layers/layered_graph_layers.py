"""Layers on layered graphs whose nodes and edges both carry numbers, by messages or by relational attention.

The formulas are those of `layers.graph_layers`. Here each layer of a network is one block of edges between all nodes of
two neighbouring layers. Sums over edges are sums along a dimension, and nothing is gathered or scattered.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from nfn_transformer.layers.bilinear import Nodes


class Block(NamedTuple):
    """Edges from s nodes to t nodes, in p pairs of layers or one."""

    edges: Float[Tensor, "b *p t s d"]
    """Numbers of the edges."""
    there: Bool[Tensor, "b *p t s"]
    """True for the edges that a network has."""


class MessagesAlong(nn.Module):
    """Means of messages m (1 + y), y of the node that sends."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, hidden: Tensor, block: Block, sender: Tensor, receiver: Tensor) -> Float[Tensor, "b *p t d"]:
        """Return the mean over the senders, along the dimension before the last.

        Args:
            hidden: hidden numbers of the edges [b, *p, t, s, d].
            block: the edges.
            sender, receiver: numbers [b, *p, s, d] and [b, *p, t, d] of both ends.
        """
        # An edge is there where both its ends are.
        sends, receives = (block.there.any(dim).unsqueeze(-1).to(hidden.dtype) for dim in (-2, -1))
        summed = (hidden * ((1 + sender) * sends)[..., None, :, :]).sum(-2)
        return summed * (receives / sends.sum(-2, keepdim=True).clamp(min=1))


class AttentionAlong(nn.Module):
    """Relational attention of nodes to their edges and to the nodes at their other ends.

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

    def forward(self, hidden: Tensor, block: Block, sender: Tensor, receiver: Tensor) -> Float[Tensor, "b *p t d"]:
        """Return what receivers attend to; arguments as of `MessagesAlong`, without the hidden numbers."""
        given = self.of_nodes(sender)[..., None, :, :] + self.of_edges(block.edges)
        keys, values = (part.unflatten(-1, (self.heads, -1)) for part in given.chunk(2, dim=-1))  # [b, *p, t, s, h, c]
        queries = self.queries(receiver).unflatten(-1, (self.heads, -1))[..., :, None, :, :]
        scores = (queries * keys).sum(-1) / math.sqrt(keys.shape[-1])  # [b, *p, t, s, h]
        # A finite number: nodes that a network does not have attend to nothing, evenly.
        shares = scores.masked_fill(~block.there[..., None], -1e9).softmax(-2)
        return (shares[..., None] * values).sum(-3).flatten(-2)


class LayeredGraphLayer(nn.Module):
    """Layer from nodes and blocks of edges to the same shapes.

    Args:
        dim: d.
        last: no layer follows, so that edges need not change.
        heads: attention heads; 0 for means of messages.
    """

    def __init__(self, dim: int, last: bool, heads: int = 0):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.of_edge, self.of_source, self.of_target = (nn.Linear(dim, dim, bias=bias) for bias in (True, False, False))
        self.incoming, self.outgoing = (AttentionAlong(dim, heads) if heads else MessagesAlong(dim) for _ in range(2))
        self.edge_update = None if last else nn.Linear(dim, dim)
        self.node_update = nn.Sequential(nn.Linear(3 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(
        self, nodes: Nodes, blocks: tuple[Block, Block, Block], is_last: Float[Tensor, "b H"]
    ) -> tuple[Nodes, tuple[Block, Block, Block]]:
        """Return nodes and edges after the layer.

        Args:
            nodes: numbers of all nodes.
            blocks: edges from the inputs, between hidden layers, and to the outputs.
            is_last: 1 for the last hidden layer of each network.
        """
        normed, last = Nodes(*map(self.norm, nodes)), is_last[..., None, None]
        ends = [
            (normed.inputs, normed.hidden[:, 0]),
            (normed.hidden[:, :-1], normed.hidden[:, 1:]),
            ((normed.hidden * last).sum(1), normed.outputs),
        ]
        passed = [self._pass(block, *pair) for block, pair in zip(blocks, ends, strict=True)]
        into = [incoming for incoming, _, _ in passed]
        out = [outgoing for _, outgoing, _ in passed]
        none = torch.zeros_like
        incoming = Nodes(none(nodes.inputs), torch.cat([into[0][:, None], into[1]], dim=1), into[2])
        onward = torch.cat([out[1], none(nodes.hidden[:, :1])], dim=1) + out[2][:, None] * last
        outgoing = Nodes(out[0], onward, none(nodes.outputs))
        updated = [
            own + self.node_update(torch.cat(parts, dim=-1))
            for own, *parts in zip(nodes, normed, incoming, outgoing, strict=True)
        ]
        return Nodes(*updated), (passed[0][2], passed[1][2], passed[2][2])

    def _pass(self, block: Block, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Block]:
        """Return what the targets and the sources of a block's edges get, and the block after the layer."""
        from_source, from_target = self.of_source(source), self.of_target(target)
        hidden = gelu(self.of_edge(block.edges) + from_source[..., None, :, :] + from_target[..., :, None, :])
        back = Block(block.edges.transpose(-3, -2), block.there.transpose(-2, -1))
        sends = (source, target) if isinstance(self.incoming, AttentionAlong) else (from_source, from_target)
        incoming = self.incoming(hidden, block, *sends)
        outgoing = self.outgoing(hidden.transpose(-3, -2), back, *sends[::-1])
        edges = block.edges if self.edge_update is None else block.edges + self.edge_update(hidden)
        return incoming, outgoing, Block(edges, block.there)
