"""A transformer as the graph of its computation: neurons are nodes, weights are edges, biases belong to nodes.

After Neural Graphs (Kofinas et al. 2024, arXiv 2403.12143), for the zoo's networks. From input to output:

    pixels -> coordinates            the patch embedding's kernel; its bias at the coordinates
    tokens -> coordinates            the constant positional encoding of the checkpoint; without an embedding,
                                     coordinates are told apart instead, as those of word vectors are
    coordinates -> LayerNorm         one node for each LayerNorm, which looks at all of them
    coordinates -> queries, keys, values          W^Q, W^K, W^V: a node for each column of each head
    query c -> key c                 the product whose sum over c is a score; in each head by itself
    queries, keys -> head            one node for each head's attention
    head -> values                   what it mixes
    values -> attended               W^O: coordinates after the attention
    attended -> hidden -> coordinates             W^A, W^B; b^A and b^B at their targets; the next block follows
    coordinates -> pooled            the mean over tokens after the last LayerNorm, each coordinate by itself
    pooled -> hidden -> classes      the classifier

Nodes are told apart if they have a meaning of their own: pixels, tokens, classes. Others differ by their edges alone.
So a function that treats a set's nodes alike is invariant to permuting heads, hidden neurons, and coordinates after an
attention or a block. It is invariant to permuting the columns of a head's values, and of its queries with its keys.
It is not invariant to other elements of GL(D_k) and GL(D_v), to scales or rotations: they change the weights of edges.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import BlockWeights, EmbeddingWeights, FeedForwardWeights, TransformerWeights

Pairs = Callable[[int, int], Tensor]
"""From the sizes of two sets to pairs of indices in them, int64 [2, edges]."""


@dataclass(frozen=True)
class NodeSet:
    """Nodes of one kind."""

    name: str
    size: int
    """Count of nodes."""
    biases: Float[Tensor, "b size"] | None = None
    """None if the nodes have no bias."""
    told_apart: bool = False
    """Each node has a meaning of its own."""


@dataclass(frozen=True)
class EdgeSet:
    """Edges of one kind between two sets of nodes."""

    source: str
    """Name of a set of nodes."""
    target: str
    """Name of a set of nodes."""
    size: int
    """Count of edges."""
    make_pairs: Callable[[], Tensor]
    """Makes `pairs`."""
    weights: Float[Tensor, "b size"] | None = None
    """None if the edges have no weight."""

    @property
    def pairs(self) -> Int64[Tensor, "2 size"]:
        """Return the indices of both ends in their sets."""
        return self.make_pairs()


class ComputationGraph:
    """Graphs of b networks of one spec, which differ by weights and biases alone.

    ```python
    graph = nfn.ComputationGraph(zoo.weights(torch.arange(8)))
    graph.edge_index, graph.numbers()  # [2, E], [8, N + E]
    ```

    Args:
        weights: of one channel.

    Attributes:
        nodes: sets of nodes from input to output.
        edges: sets of edges from input to output.

    Raises:
        SpecError: parts have different widths D.
    """

    def __init__(self, weights: TransformerWeights):
        self.nodes: list[NodeSet] = []
        self.edges: list[EdgeSet] = []
        self._like = weights.classifier.biases[0].flatten(1)  # [b, classifier's hidden neurons]
        widths = weights.spec.widths
        if len(set(widths)) > 1:
            raise SpecError(f"networks with parts of width {', '.join(map(str, widths))}, expected one width D in all")
        coordinates = self._embed(weights)
        for index, block in enumerate(weights.blocks):
            coordinates = self._block(f"block {index} ", block, coordinates)
        self._normalise(coordinates)
        pooled = self._nodes("pooled", weights.classifier.spec.sizes[0])
        self._link(coordinates, pooled, pooled.size, _one_to_one)
        self._classify(pooled, weights.classifier)

    @property
    def edge_index(self) -> Int64[Tensor, "2 E"]:
        """Return source and target of each edge among all nodes."""
        starts, start = {}, 0
        for nodes in self.nodes:
            starts[nodes.name], start = start, start + nodes.size
        offsets = [torch.tensor([[starts[edges.source]], [starts[edges.target]]]) for edges in self.edges]
        return torch.cat([edges.pairs + offset for edges, offset in zip(self.edges, offsets, strict=True)], dim=1)

    def numbers(self) -> Float[Tensor, "b numbers"]:
        """Return biases of the N nodes and then weights of the E edges, set by set, 0 for none: [b, N + E]."""
        parts = [(nodes.size, nodes.biases) for nodes in self.nodes] + [
            (edges.size, edges.weights) for edges in self.edges
        ]
        zeros = self._like.new_zeros
        return torch.cat([zeros(len(self._like), n) if values is None else values for n, values in parts], dim=1)

    def _nodes(self, name: str, size: int, biases: Tensor | None = None, told_apart: bool = False) -> NodeSet:
        self.nodes.append(NodeSet(name, size, None if biases is None else biases.flatten(1), told_apart))
        return self.nodes[-1]

    def _link(self, source: NodeSet, target: NodeSet, size: int, pairs: Pairs, weights: Tensor | None = None) -> None:
        make_pairs = partial(pairs, source.size, target.size)
        self.edges.append(EdgeSet(source.name, target.name, size, make_pairs, weights))

    def _connect(self, source: NodeSet, target: NodeSet, weights: Tensor) -> None:
        """Link all pairs by weights [b, sources, targets]."""
        self._link(source, target, source.size * target.size, _all, weights.flatten(1))

    def _normalise(self, coordinates: NodeSet) -> None:
        normalised = self._nodes(f"LayerNorm of {coordinates.name}", 1)
        self._link(coordinates, normalised, coordinates.size, _in_groups)

    def _embed(self, weights: TransformerWeights) -> NodeSet:
        embedding: EmbeddingWeights | None = weights.embedding
        if embedding is None:
            width = weights.blocks[0].spec.width if weights.blocks else weights.classifier.spec.sizes[0]
            return self._nodes("coordinates", width, told_apart=True)
        kernel = embedding.conv_weight.squeeze(1).flatten(2).transpose(1, 2)  # [b, C p q, D]
        pixels = self._nodes("pixels", kernel.shape[1], told_apart=True)
        tokens = self._nodes("tokens", embedding.spec.tokens, told_apart=True)
        coordinates = self._nodes("coordinates", kernel.shape[2], embedding.conv_bias)
        self._connect(pixels, coordinates, kernel)
        self._connect(tokens, coordinates, embedding.pos_embedding.squeeze(1))
        return coordinates

    def _block(self, name: str, block: BlockWeights, coordinates: NodeSet) -> NodeSet:
        spec = block.spec
        self._normalise(coordinates)
        queries = self._nodes(f"{name}queries", spec.heads * spec.key)
        keys = self._nodes(f"{name}keys", spec.heads * spec.key)
        values = self._nodes(f"{name}values", spec.heads * spec.value)
        heads = self._nodes(f"{name}heads", spec.heads)
        for nodes, projection in ((queries, block.W_Q), (keys, block.W_K), (values, block.W_V)):
            self._connect(coordinates, nodes, projection.squeeze(1).transpose(1, 2))  # [b, D, h, D_k]
        self._link(queries, keys, queries.size, _one_to_one)
        self._link(queries, heads, queries.size, _in_groups)
        self._link(keys, heads, keys.size, _in_groups)
        self._link(heads, values, values.size, _in_groups)
        attended = self._nodes(f"{name}attended", spec.width)
        self._connect(values, attended, block.W_O.squeeze(1))  # [b, h, D_v, D]
        self._normalise(attended)
        hidden = self._nodes(f"{name}hidden", spec.hidden, block.b_A)
        self._connect(attended, hidden, block.W_A.squeeze(1))
        leaving = self._nodes(f"{name}coordinates", spec.width, block.b_B)
        self._connect(hidden, leaving, block.W_B.squeeze(1))
        return leaving

    def _classify(self, entering: NodeSet, classifier: FeedForwardWeights) -> None:
        last = classifier.spec.layers - 1
        for layer, (weight, bias) in enumerate(zip(classifier.weights, classifier.biases, strict=True)):
            name = "classes" if layer == last else f"classifier hidden {layer}"
            leaving = self._nodes(name, bias.shape[-1], bias, told_apart=layer == last)
            self._connect(entering, leaving, weight.squeeze(1).transpose(1, 2))
            entering = leaving


def _all(sources: int, targets: int) -> Tensor:
    """Return pairs of each with each."""
    return torch.cartesian_prod(torch.arange(sources), torch.arange(targets)).T


def _one_to_one(sources: int, targets: int) -> Tensor:
    """Return pairs of equal indices."""
    return torch.stack([torch.arange(sources), torch.arange(targets)])


def _in_groups(sources: int, targets: int) -> Tensor:
    """Return pairs of each index of the smaller set with equally many neighbours of the larger set."""
    every = torch.arange(max(sources, targets))
    return torch.stack([every // (len(every) // sources), every // (len(every) // targets)])
