"""Tensor trees: a function over the tensors of one or several; weights that are checked against their spec."""

from dataclasses import replace

import pytest
import torch
from symmetry import random_feed_forward, random_transformer

from nfn_transformer import (
    BlockSpec,
    BlockWeights,
    EmbeddingSpec,
    FeedForwardSpec,
    GroupElement,
    SpecError,
    TransformerSpec,
)
from nfn_transformer.weights.containers import weight_shapes

BLOCK = BlockSpec(2, 6, 3, 2, 5)
SPEC = TransformerSpec((BLOCK, BLOCK), FeedForwardSpec((6, 4, 3)), EmbeddingSpec(1, 6, (2, 2), 4))


def test_map_takes_the_tensors_of_several_trees_in_step(generator):
    U, V, W = (random_transformer(SPEC, 2, generator) for _ in range(3))
    mapped = U.map(lambda u, v, w: u + 10 * v + 100 * w, V, W)
    expected = [u + 10 * v + 100 * w for u, v, w in zip(U.tensors(), V.tensors(), W.tensors(), strict=True)]
    assert all(map(torch.equal, mapped.tensors(), expected))
    assert len(expected) == 3 + 2 * 8 + 4
    assert replace(U, embedding=None).map(torch.add, replace(V, embedding=None)).embedding is None


def test_trees_of_other_lengths_are_refused(generator):
    U = random_transformer(SPEC, 2, generator)
    with pytest.raises(ValueError, match="shorter"):
        U.map(torch.add, replace(U, blocks=U.blocks[:1]))


def test_elements_are_trees_that_keep_their_permutations(generator):
    g = GroupElement.sample(SPEC, generator).to("cpu", torch.float32)
    assert {tensor.dtype for tensor in g.tensors()} == {torch.int64, torch.float32}
    assert g.classifier is None


def test_a_product_with_an_element_without_classifier_is_the_classifier_of_the_other(generator):
    f, g = GroupElement.sample(SPEC, generator), GroupElement.sample(SPEC, generator, classifier=True)
    assert (g @ f).classifier is (f @ g).classifier is g.classifier
    assert (f @ f).classifier is (~f).classifier is None


def test_weights_are_checked_name_by_name(generator):
    U = random_transformer(SPEC, 2, generator)
    U.check(SPEC)
    assert U.spec == SPEC
    assert SPEC.widths == (6, 6, 6, 6)
    assert replace(SPEC, embedding=None, blocks=()).widths == (6,)
    wider = FeedForwardSpec((6, 4, 4))
    assert list(weight_shapes(SPEC.classifier)) == ["weights[0]", "weights[1]", "biases[0]", "biases[1]"]
    with pytest.raises(SpecError, match=r"'biases\[1\]' has shape \(2, 1, 3\), expected \(b, d, 4\)"):
        replace(U.classifier, weights=random_feed_forward(wider, 2, 1, generator).weights).check(wider)
    with pytest.raises(SpecError, match="weights have no embedding, expected one"):
        replace(U, embedding=None).check(SPEC)
    with pytest.raises(SpecError, match="weights have an embedding, expected none"):
        U.check(replace(SPEC, embedding=None))
    with pytest.raises(SpecError, match=r"weights have the tensors W_Q, .*, expected weights\[0\], "):
        U.blocks[0].check(SPEC.classifier)
    with pytest.raises(SpecError, match=r"'W_A' has shape \(6, 5\), expected \(b, d, 6, 5\)"):
        BlockWeights(**{**vars(U.blocks[0]), "W_A": U.blocks[0].W_A[0, 0]}).check(BLOCK)
