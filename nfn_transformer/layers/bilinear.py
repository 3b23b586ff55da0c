"""Messages between the nodes of a layered graph that are linear in its weights, and exact to signs of nodes.

A node carries odd numbers x, which change sign with it, and even numbers z, which do not. An edge w of s and t changes
sign with either. So these are odd and even again, for any learned matrices A, B and any function f:

    odd     sum over s of w_ts A x_s,    sum over t of w_ts B x_t,    x * f(even)
    even    sum over s of w_ts^2 A z_s,  sum over t of w_ts^2 B z_t,  (A x) * (B x)

A layer adds such terms to the x and z of all nodes, with parameters that layers of the graph share. Nothing is kept
for an edge: time and memory grow with its numbers alone.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Nodes(NamedTuple):
    """Numbers of all nodes of b graphs."""

    inputs: Float[Tensor, "b inputs d"]
    """Those of the inputs."""
    hidden: Float[Tensor, "b H n d"]
    """Those of hidden nodes."""
    outputs: Float[Tensor, "b outputs d"]
    """Those of the outputs."""


def pooled_nodes(
    nodes: Nodes, there: Bool[Tensor, "b H n"], is_last: Float[Tensor, "b H"]
) -> Float[Tensor, "b numbers"]:
    """Return means side by side: of the inputs, the first, all and the last hidden layers, and the outputs.

    Args:
        nodes: numbers of all nodes.
        there: True for hidden nodes that a network has.
        is_last: 1 for the last hidden layer of each network.
    """
    mask = there[..., None].to(nodes.hidden.dtype)
    of_layers = (nodes.hidden * mask).sum(2) / mask.sum(2).clamp(min=1)  # [b, H, d]
    last = (of_layers * is_last[..., None]).sum(1)
    mean = of_layers.sum(1) / there.any(2).sum(1, keepdim=True)
    return torch.cat([nodes.inputs.mean(1), of_layers[:, 0], mean, last, nodes.outputs.mean(1)], dim=1)


class Edges(NamedTuple):
    """Edges of b graphs, k numbers each; 0 where a network has none."""

    first: Float[Tensor, "b n inputs k"]
    """Edges from the inputs."""
    middle: Float[Tensor, "b pairs n n k"]
    """Edges from each hidden layer to the next one."""
    last: Float[Tensor, "b outputs n k"]
    """Edges to the outputs."""
    is_last: Float[Tensor, "b H"]
    """1 for the last hidden layer of each network."""
    widths: Float[Tensor, "b H"]
    """Count of each hidden layer's nodes, at least 1."""


def messages(edges: Edges, nodes: Nodes, onward: nn.Linear, back: nn.Linear) -> tuple[Nodes, Nodes]:
    """Return what nodes get from the layer before and from the layer behind, each scaled by the root of their count.

    Args:
        edges: of k numbers.
        nodes: of d numbers.
        onward, back: maps from d to k d numbers: one matrix for each number of an edge.
    """
    k, last = edges.first.shape[-1], edges.is_last[..., None, None]
    widths, last_width = edges.widths, (edges.widths * edges.is_last).sum(1)
    inputs, outputs = (torch.full_like(last_width, each.shape[1]) for each in (nodes.inputs, nodes.outputs))
    sent = Nodes(*(onward(numbers).unflatten(-1, (k, -1)) for numbers in nodes))
    returned = Nodes(*(back(numbers).unflatten(-1, (k, -1)) for numbers in nodes))
    into_first, into_others = (
        _sum(edges.first, sent.inputs, inputs),
        _sum(edges.middle, sent.hidden[:, :-1], widths[:, :-1]),
    )
    into_last = (sent.hidden * last[..., None]).sum(1)  # numbers of each network's last hidden layer
    forward = Nodes(
        torch.zeros_like(nodes.inputs),
        torch.cat([into_first[:, None], into_others], dim=1),
        _sum(edges.last, into_last, last_width),
    )
    from_outputs = _sum(edges.last.transpose(1, 2), returned.outputs, outputs)
    from_hidden = _sum(edges.middle.transpose(2, 3), returned.hidden[:, 1:], widths[:, 1:])
    from_hidden = torch.cat([from_hidden, torch.zeros_like(nodes.hidden[:, :1])], dim=1)
    backward = Nodes(
        _sum(edges.first.transpose(1, 2), returned.hidden[:, 0], widths[:, 0]),
        from_hidden + from_outputs[:, None] * last,
        torch.zeros_like(nodes.outputs),
    )
    return forward, backward


def _sum(
    edges: Float[Tensor, "b *p t s k"], numbers: Float[Tensor, "b *p s k d"], counts: Float[Tensor, " b *p"]
) -> Float[Tensor, "b *p t d"]:
    """Return the sum over s and k of edges times numbers, divided by the root of the count of s."""
    return edges.flatten(-2) @ numbers.flatten(-3, -2) * counts.rsqrt()[..., None, None]


class BilinearLayer(nn.Module):
    """Layer from odd and even numbers of all nodes to such numbers.

    Args:
        dim: d, count of either.
        edge_numbers: k.
    """

    def __init__(self, dim: int, edge_numbers: int):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(dim, edge_numbers * dim, bias=False) for _ in range(4))
        self.pairs = nn.Linear(3 * dim, 2 * dim, bias=False)
        self.odd = nn.Linear(3 * dim, dim, bias=False)
        self.even = nn.Sequential(
            nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2 * dim)
        )

    def forward(self, edges: Edges, squares: Edges, x: Nodes, z: Nodes) -> tuple[Nodes, Nodes]:
        """Return the odd numbers x and the even numbers z after the layer.

        Args:
            edges: edges and whose networks' last layers.
            squares: the same with the squares of the edges' numbers.
            x, z: odd and even numbers.
        """
        odd = messages(edges, x, *self.maps[:2])
        even = messages(squares, z, *self.maps[2:])
        new_x, new_z = [], []
        for own_x, own_z, x_in, x_out, z_in, z_out in zip(x, z, *odd, *even, strict=True):
            around = torch.cat([own_x, x_in, x_out], dim=-1)
            first, second = self.pairs(around).chunk(2, dim=-1)
            change, gate = self.even(torch.cat([first * second, own_z, z_in, z_out], dim=-1)).chunk(2, dim=-1)
            new_x.append(damped(own_x + self.odd(around) * gate))
            new_z.append(own_z + change)
        return Nodes(*new_x), Nodes(*new_z)


def damped(numbers: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Return numbers divided by a root of their mean square plus 1, so that they stay of the order of 1."""
    return numbers * (1 + numbers.square().mean(-1, keepdim=True)).rsqrt()
