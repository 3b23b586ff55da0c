"""Encoder of standard transformers as graphs: coordinates of the stream and neurons are nodes, weights are edges.

The residual stream's coordinates are nodes that all blocks share. Each block adds three groups of nodes: pairs of query
and key coordinates, value coordinates, hidden neurons. Edges to the stream hold the weights by which a node reads and
writes. Inputs and outputs are nodes with learned positions. Weights are those of the canonical form
(`groups.standard_form`), so that gains and shifts are in them. Permutations change no output; other symmetries do.

A table of more than WHOLE_ROWS rows, as the 30,522 words of a BERT, is pooled. Its rows are cut in order into POOLS
parts, and each part's mean and standard deviation are two nodes. Columns of a language model's head are pooled alike.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfn_transformer.groups.standard_form import standard_canonical_form, standard_canonical_spec
from nfn_transformer.models.branch import Branch, network_head
from nfn_transformer.models.encoders.graph import GraphConfig
from nfn_transformer.weights.containers import TensorTree
from nfn_transformer.weights.standard_containers import StandardBlockWeights, StandardTransformerWeights
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import standard_shapes, standard_weights

EDGES = {"score": 2, "value": 2, "mlp": 3, "input": 1, "output": 1}
"""Group of nodes -> numbers of an edge to the stream: of W_Q, W_K; W_V, W_O; W_1, W_2 and the gate; 1 for the ends."""

WHOLE_ROWS, POOLS = 1024, 128
"""Rows of a table of inputs, or columns of a head, from which on they are pooled; parts that these are cut into."""

_SMALL = 1e-6


@dataclass(frozen=True)
class StandardGraphs(TensorTree):
    """Graphs of b networks, from their canonical form."""

    blocks: tuple[StandardBlockWeights, ...]
    """Blocks from input to output."""
    inputs: Float[Tensor, "*n b rows D"]
    """Rows that inputs write: words, patches, positions, prefix tokens."""
    columns: Float[Tensor, "*n b D outputs"]
    """Weights by which outputs read, the product of the head's layers."""
    biases: Float[Tensor, "*n b outputs"]
    """Biases of the head's last layer."""


class NodeGroup(NamedTuple):
    """Nodes of a kind, and their edges to the stream's coordinates."""

    name: str
    """Name in EDGES."""
    heads: int
    """Heads whose nodes stand side by side; 0 for none."""
    bias: Float[Tensor, "b n numbers"]
    """Bias of each node, and its place in depth."""
    edges: tuple[Float[Tensor, "b D n"], ...]
    """Weights by which a node reads or writes."""


class Exchange(nn.Module):
    """Messages along weighted edges: sums of weights times numbers, and of squared weights times numbers.

    Args:
        dim: numbers of a node.
        edges: numbers of an edge.
    """

    def __init__(self, dim: int, edges: int):
        super().__init__()
        self.edges = edges
        self.sends = nn.Linear(dim, 2 * edges * dim, bias=False)

    def forward(self, edges: Iterable[Float[Tensor, "b m n"]], nodes: Float[Tensor, "b n d"]) -> Tensor:
        """Return the messages [b, m, d] that m nodes receive from n nodes."""
        sent, count = self.sends(nodes).chunk(2 * self.edges, dim=-1), nodes.shape[1]
        messages = [
            weight @ linear / math.sqrt(count) + weight.square() @ squared / count
            for weight, linear, squared in zip(edges, sent[::2], sent[1::2], strict=True)
        ]
        return torch.stack(messages).sum(0)


class Update(nn.Module):
    """Residual update of nodes by what they receive."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * dim)
        self.change = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, nodes: Float[Tensor, "b n d"], received: Float[Tensor, "b n d"]) -> Tensor:
        """Return the nodes [b, n, d] after messages."""
        return nodes + self.change(self.norm(torch.cat([nodes, received], dim=-1)))


class StandardGraphLayer(nn.Module):
    """Exchange between the stream and all other nodes; blocks share the parameters."""

    def __init__(self, dim: int):
        super().__init__()
        self.reads = nn.ModuleDict({name: Exchange(dim, edges) for name, edges in EDGES.items()})
        self.writes = nn.ModuleDict({name: Exchange(dim, edges) for name, edges in EDGES.items()})
        self.updates = nn.ModuleDict({name: Update(dim) for name in (*EDGES, "stream")})
        self.in_head = nn.Linear(dim, dim, bias=False)

    def forward(self, stream: Tensor, groups: list[NodeGroup], nodes: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the stream's nodes [b, D, d], and the nodes [b, n, d] of each group."""
        after, written = [], []
        for group, each in zip(groups, nodes, strict=True):
            received = self.reads[group.name]([edge.transpose(1, 2) for edge in group.edges], stream)
            if group.heads:  # what the coordinates of a head have in common
                of_head = each.unflatten(1, (group.heads, -1)).mean(2)  # [b, heads, d]
                received = received + self.in_head(of_head).repeat_interleave(each.shape[1] // group.heads, dim=1)
            after.append(self.updates[group.name](each, received))
            written.append(self.writes[group.name](group.edges, after[-1]))
        return self.updates["stream"](stream, torch.stack(written).sum(0) / math.sqrt(len(groups))), after


class StandardGraphEncoder(Branch):
    """Map of standard transformers of one spec to numbers [b, outputs] that permutations leave unchanged.

    Args:
        spec: of the networks.
        config: layers, numbers of a node, outputs, dropout.
    """

    needs_normalization = True
    scales: Tensor

    def __init__(self, spec: StandardTransformerSpec, config: GraphConfig):
        super().__init__()
        self.spec, d = spec, config.graph_dim
        shapes = standard_shapes(spec).items()  # whose numbers may be too many to be allocated
        empty = standard_weights({key: torch.empty(1, *s, device="meta") for key, s in shapes}, spec)
        groups = _groups(self.featurize(empty))
        ends = {group.name: group.bias.shape[1] for group in groups[-2:]}
        self.positions = nn.ParameterDict({name: nn.Parameter(torch.randn(count, d)) for name, count in ends.items()})
        self.numbers = nn.ModuleDict({name: nn.Linear(2, d) for name in EDGES})
        self.stream = nn.Linear(5, d)
        self.layers = nn.ModuleList(StandardGraphLayer(d) for _ in range(config.graph_layers))
        self.head = network_head(2 * d * (len(EDGES) + 1), config.outputs, config.dropout)
        self.register_buffer("scales", torch.ones(len(EDGES)))

    def featurize(self, weights: StandardTransformerWeights) -> StandardGraphs:
        """Return the graphs of b networks."""
        form = standard_canonical_form(weights)
        return StandardGraphs(form.blocks, _inputs(form), *_outputs(form))

    def supports(self, spec: object) -> bool:
        """Return whether networks have the same canonical form."""
        if not isinstance(spec, StandardTransformerSpec):
            return False
        return standard_canonical_spec(spec) == standard_canonical_spec(self.spec)

    def fit_normalization(self, seen: Iterable[StandardGraphs]) -> None:
        """Divide the edges of each group by their root mean square over the training split."""
        sums, counts = dict.fromkeys(EDGES, 0.0), dict.fromkeys(EDGES, 0)
        for graphs in seen:
            for group in _groups(graphs):
                for edge in group.edges:
                    sums[group.name] += edge.double().square().sum().item()
                    counts[group.name] += edge.numel()
        means = torch.tensor([sums[name] / max(1, counts[name]) for name in EDGES])
        self.scales.copy_(torch.where(means > _SMALL**2, means.sqrt(), 1.0))

    def from_features(self, features: StandardGraphs, keys: Tensor | None = None) -> Tensor:
        """Map graphs to [b, outputs]."""
        scales = dict(zip(EDGES, self.scales, strict=True))
        groups = [
            group._replace(edges=tuple(edge / scales[group.name] for edge in group.edges))
            for group in _groups(features)
        ]
        nodes = [self.numbers[group.name](group.bias) for group in groups]
        nodes = [
            each + self.positions[group.name] if group.name in self.positions else each
            for group, each in zip(groups, nodes, strict=True)
        ]
        stream = self.stream(_stream_numbers(features))
        for layer in self.layers:
            stream, nodes = layer(stream, groups, nodes)
        pooled = [stream.mean(1), stream.amax(1)]
        for name in EDGES:
            of_kind = torch.cat([each for group, each in zip(groups, nodes, strict=True) if group.name == name], dim=1)
            pooled += [of_kind.mean(1), of_kind.amax(1)]
        return self.head(torch.cat(pooled, dim=1), keys)


def _groups(graphs: StandardGraphs) -> list[NodeGroup]:
    """Return the groups of nodes of networks, block by block, then inputs and outputs."""
    groups: list[NodeGroup] = []
    for index, block in enumerate(graphs.blocks):
        groups += _groups_of_block(block, index / len(graphs.blocks))
    inputs = graphs.inputs
    return [
        *groups,
        NodeGroup("input", 0, _with_place(torch.zeros_like(inputs[..., 0]), 0.0), (inputs.transpose(1, 2),)),
        NodeGroup("output", 0, _with_place(graphs.biases, 1.0), (graphs.columns,)),
    ]


def _inputs(form: StandardTransformerWeights) -> Float[Tensor, "b rows D"]:
    """Return what the inputs of canonical networks write into the stream."""
    # Positions and prefix tokens of words stand before the embedding norm, those of patches behind it.
    early, late = [form.words, form.W_E], [form.positions, form.prefix]
    if form.spec.inputs in ("words", "stream"):
        early, late = [*early, *late], []
    rows = [table for table in early if table is not None]
    if form.embedding_gain is not None:
        gain = form.embedding_gain
        rows = [table @ gain if gain.ndim == 3 else table * gain[:, None] for table in rows]
    rows += [table for table in late if table is not None]
    return (
        torch.cat([_pooled(table) for table in rows], dim=1) if rows else torch.zeros_like(form.blocks[0].b_O)[:, None]
    )


def _outputs(form: StandardTransformerWeights) -> tuple[Float[Tensor, "b D outputs"], Float[Tensor, "b outputs"]]:
    """Return what the outputs of canonical networks read from the stream, and their biases."""
    like = form.blocks[0].b_O
    if not form.head_weights:
        return like.new_zeros(*like.shape, 1), like.new_zeros(len(like), 1)
    columns = form.head_weights[0]
    for W in form.head_weights[1:]:
        columns = columns @ W
    return _pooled(columns.transpose(1, 2)).transpose(1, 2), _pooled(form.head_biases[-1][..., None])[..., 0]


def _pooled(rows: Float[Tensor, "b n D"]) -> Float[Tensor, "b rows D"]:
    """Return rows, or the mean and the standard deviation of each part where they are more than WHOLE_ROWS.

    Both are exact, and commute with permutations of D.
    """
    if rows.shape[1] <= WHOLE_ROWS:
        return rows
    parts = rows.tensor_split(POOLS, dim=1)
    means, deviations = [part.mean(1) for part in parts], [part.std(1, correction=0) for part in parts]
    return torch.stack([*means, *deviations], dim=1)


def _groups_of_block(block: StandardBlockWeights, place: float) -> list[NodeGroup]:
    h, q = block.W_Q.shape[1], block.W_Q.shape[1] // block.W_K.shape[1]
    W_K, W_V = (W.repeat_interleave(q, dim=1).transpose(1, 2).flatten(2) for W in (block.W_K, block.W_V))
    W_Q, W_O = block.W_Q.transpose(1, 2).flatten(2), block.W_O.flatten(1, 2).transpose(1, 2)  # [b, D, h d]
    none = torch.zeros_like(W_V[:, 0])
    gate = torch.zeros_like(block.W_1) if block.W_G is None else block.W_G
    return [
        NodeGroup("score", h, _with_place(block.b_Q.flatten(1), place), (W_Q, W_K)),
        NodeGroup("value", h, _with_place(none, place), (W_V, W_O)),
        NodeGroup("mlp", 0, _with_place(block.b_1, place), (block.W_1, block.W_2.transpose(1, 2), gate)),
    ]


def _with_place(bias: Float[Tensor, "b n"], place: float) -> Float[Tensor, "b n 2"]:
    return torch.stack([bias, torch.full_like(bias, place)], dim=-1)


def _stream_numbers(graphs: StandardGraphs) -> Float[Tensor, "b D 5"]:
    """Return of each coordinate of the stream the mean over the blocks of its biases, gains and shifts."""
    roles = ("b_O", "b_2", "gain_1", "gain_2", "shift_1")
    return torch.stack([torch.stack([vars(b)[role] for b in graphs.blocks]).mean(0) for role in roles], dim=-1)
