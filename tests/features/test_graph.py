"""A transformer as a graph: it holds each weight once, and says all that it takes to run the network."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_transformer
from torch.nn.functional import layer_norm

from nfn_transformer import (
    BlockSpec,
    ComputationGraph,
    EmbeddingSpec,
    FeedForwardSpec,
    SpecError,
    TransformerSpec,
    image_logits,
)
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.weights.forward import LAYER_NORM_EPSILON, patches

sizes = st.integers(1, 4)


@st.composite
def specs(draw, embedded=None):
    width, embedded = draw(st.integers(2, 5)), draw(st.booleans()) if embedded is None else embedded
    blocks = [
        BlockSpec(draw(sizes), width, draw(sizes), draw(sizes), draw(sizes)) for _ in range(draw(st.integers(0, 3)))
    ]
    classifier = FeedForwardSpec((width, *draw(st.lists(sizes, min_size=1, max_size=3))))
    return TransformerSpec(tuple(blocks), classifier, EmbeddingSpec(2, width, (2, 3), 4) if embedded else None)


class Run:
    """A network that runs on nothing but what an encoder sees of its graph."""

    def __init__(self, graph: ComputationGraph):
        self.sizes = {nodes.name: nodes.size for nodes in graph.nodes}
        counts = [len(edges.pairs[0]) for edges in graph.edges]
        biases, weights = graph.numbers().split([sum(self.sizes.values()), sum(counts)], dim=1)
        self.biases = dict(zip(self.sizes, biases.split(list(self.sizes.values()), dim=1), strict=True))
        starts = dict(zip(self.sizes, itertools.accumulate(self.sizes.values(), initial=0), strict=False))
        self.edges = {
            (edges.source, edges.target): (
                pairs[0] - starts[edges.source],
                pairs[1] - starts[edges.target],
                torch.ones_like(own) if edges.weights is None else own,
            )
            for edges, pairs, own in zip(
                graph.edges, graph.edge_index.split(counts, dim=1), weights.split(counts, dim=1), strict=True
            )
        }

    def matrix(self, source: str, target: str) -> torch.Tensor:
        """Weights [b, sources, targets], 1 where an edge has none, 0 where there is no edge."""
        rows, columns, weights = self.edges[source, target]
        found = torch.zeros(len(weights), self.sizes[source], self.sizes[target], dtype=torch.float64)
        found[:, rows, columns] = weights
        return found

    def pass_on(self, x: torch.Tensor, source: str, target: str) -> torch.Tensor:
        """From [b, m, sources] to [b, m, targets]."""
        return x @ self.matrix(source, target) + self.biases[target][:, None]

    def normalise(self, x: torch.Tensor, name: str) -> torch.Tensor:
        assert (name, f"LayerNorm of {name}") in self.edges
        return layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON)

    def attend(self, x: torch.Tensor, block: str, entering: str) -> torch.Tensor:
        """One input's tokens [b, T, D] to what enters W^O, [b, T, values]."""
        queries, keys, values = (self.pass_on(x, entering, f"{block}{part}") for part in ("queries", "keys", "values"))
        paired = self.matrix(f"{block}queries", f"{block}keys")
        of_queries, of_keys = (self.matrix(f"{block}{part}", f"{block}heads") for part in ("queries", "keys"))
        assert torch.equal(paired @ of_keys, of_queries)
        of_values, mixed = self.matrix(f"{block}heads", f"{block}values"), 0
        for head in range(self.sizes[f"{block}heads"]):
            own = of_queries[:, None, :, head]
            scores = (queries * own) @ paired @ keys.transpose(1, 2) / own[0].sum().sqrt()
            mixed = mixed + scores.softmax(-1) @ (values * of_values[:, None, head])
        return mixed

    def logits(self, tokens: torch.Tensor, blocks: int) -> torch.Tensor:
        """One image's patches [T, C p q] to logits [b, classes]."""
        x, name = self.pass_on(tokens, "pixels", "coordinates"), "coordinates"
        x = x + self.matrix("tokens", "coordinates")
        for place in range(blocks):
            block = f"block {place} "
            mixed = self.attend(self.normalise(x, name), block, name)
            x, name = self.pass_on(mixed, f"{block}values", f"{block}attended"), f"{block}attended"
            hidden = self.pass_on(self.normalise(x, name), name, f"{block}hidden").relu()
            x, name = self.pass_on(hidden, f"{block}hidden", f"{block}coordinates"), f"{block}coordinates"
        x = self.pass_on(self.normalise(x, name), name, "pooled").mean(1, keepdim=True)
        layers = ["pooled", *(name for name in self.sizes if name.startswith("classifier")), "classes"]
        for source, target in itertools.pairwise(layers):
            x = self.pass_on(x if source == "pooled" else x.relu(), source, target)
        return x.squeeze(1)


@settings(max_examples=25, deadline=None)
@given(spec=specs(embedded=True), seed=st.integers(0, 2**32))
def test_a_network_runs_on_its_graph(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    U = random_transformer(spec, 3, generator)
    image = torch.randn(1, 1, 2, 4, 6, generator=generator, dtype=torch.float64)
    expected = image_logits(image, U).squeeze(1)
    found = Run(ComputationGraph(U)).logits(patches(image, (2, 3))[0, 0], len(spec.blocks))
    assert relative_error(found, expected) < 1e-9


@settings(max_examples=25, deadline=None)
@given(spec=specs(), seed=st.integers(0, 2**32))
def test_every_number_is_there_once(spec, seed):
    U = random_transformer(spec, 2, torch.Generator().manual_seed(seed))
    graph = ComputationGraph(U)
    held = [nodes.biases for nodes in graph.nodes if nodes.biases is not None]
    held += [edges.weights for edges in graph.edges if edges.weights is not None]
    expected = torch.cat([tensor.flatten(1) for tensor in U.tensors()], dim=1)
    assert torch.equal(torch.cat(held, dim=1).sort(1).values, expected.sort(1).values)


@settings(max_examples=25, deadline=None)
@given(spec=specs())
def test_sets_fit_together(spec):
    graph = ComputationGraph(random_transformer(spec, 2, torch.Generator().manual_seed(0)))
    of_sets = {nodes.name: nodes for nodes in graph.nodes}
    assert len(of_sets) == len(graph.nodes)
    for edges in graph.edges:
        for name, places in zip((edges.source, edges.target), edges.pairs, strict=True):
            assert 0 <= places.min() <= places.max() < of_sets[name].size
        assert edges.weights is None or edges.weights.shape == (2, edges.pairs.shape[1])
    pairs = graph.edge_index
    assert len(pairs.unique(dim=1).T) == pairs.shape[1]
    count = sum(nodes.size for nodes in graph.nodes)
    assert pairs.max() == count - 1
    if spec.embedding is not None or spec.blocks:
        assert set(pairs.flatten().tolist()) == set(range(count))
    assert graph.numbers().shape == (2, count + pairs.shape[1])
    told_apart = {nodes.name for nodes in graph.nodes if nodes.told_apart}
    assert told_apart == {"classes", *(("coordinates",) if spec.embedding is None else ("pixels", "tokens"))}


def test_known_sizes():
    spec = TransformerSpec((BlockSpec(2, 6, 3, 2, 5),), FeedForwardSpec((6, 4, 3)), EmbeddingSpec(1, 6, (2, 2), 9))
    graph = ComputationGraph(random_transformer(spec, 1, torch.Generator().manual_seed(0)))
    assert [(nodes.name, nodes.size) for nodes in graph.nodes] == [
        ("pixels", 4),
        ("tokens", 9),
        ("coordinates", 6),
        ("LayerNorm of coordinates", 1),
        ("block 0 queries", 6),
        ("block 0 keys", 6),
        ("block 0 values", 4),
        ("block 0 heads", 2),
        ("block 0 attended", 6),
        ("LayerNorm of block 0 attended", 1),
        ("block 0 hidden", 5),
        ("block 0 coordinates", 6),
        ("LayerNorm of block 0 coordinates", 1),
        ("pooled", 6),
        ("classifier hidden 0", 4),
        ("classes", 3),
    ]
    weighted = 4 * 6 + 9 * 6 + 2 * 6 * 6 + 2 * 6 * 4 + 2 * 6 * 5 + 6 * 4 + 4 * 3
    others = 3 * 6 + 6 + 2 * 6 + 4 + 6
    assert graph.edge_index.shape == (2, weighted + others)


def test_parts_of_several_widths_are_refused():
    spec = TransformerSpec((BlockSpec(1, 6, 2, 2, 3), BlockSpec(1, 5, 2, 2, 3)), FeedForwardSpec((5, 3)))
    with pytest.raises(SpecError, match="parts of width 6, 5, 5, expected one width D in all"):
        ComputationGraph(random_transformer(spec, 1, torch.Generator().manual_seed(0)))
