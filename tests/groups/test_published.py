"""The group: axioms, the condition number asked for, and the function of networks that it must keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_block, random_feed_forward, random_transformer

from nfn_transformer import (
    BlockElement,
    BlockSpec,
    EmbeddingSpec,
    FeedForwardSpec,
    GroupElement,
    MonomialElement,
    TransformerSpec,
    image_logits,
)
from nfn_transformer.groups.equivariance_error import relative_error

TOLERANCE = 1e-9

block_specs = st.builds(BlockSpec, *(st.integers(1, 5) for _ in range(5)))
feed_forward_specs = st.lists(st.integers(1, 5), min_size=3, max_size=5).map(lambda s: FeedForwardSpec(tuple(s)))
seeds = st.integers(0, 2**32)

SPEC = TransformerSpec(
    blocks=(BlockSpec(3, 8, 2, 3, 5), BlockSpec(2, 8, 4, 1, 6), BlockSpec(1, 8, 3, 3, 4)),
    classifier=FeedForwardSpec((8, 7, 4)),
    embedding=EmbeddingSpec(2, 8, (2, 3), 6),
)


def same(g, f) -> bool:
    """Return whether two elements have the same permutations and, within rounding, the same matrices."""
    permutations = ("tau", "pi_O", "pi_A")
    matrices = ("M", "M_inverse", "N", "N_inverse")
    return all(torch.equal(getattr(g, p), getattr(f, p)) for p in permutations) and all(
        relative_error(getattr(g, m), getattr(f, m)) < TOLERANCE for m in matrices
    )


@settings(max_examples=40, deadline=None)
@given(spec=block_specs, seed=seeds, condition=st.sampled_from([1.0, 10.0, 100.0]))
def test_group_axioms_of_a_block(spec, seed, condition):
    generator = torch.Generator().manual_seed(seed)
    f, g, k = (BlockElement.sample(spec, generator, condition) for _ in range(3))
    one, U = BlockElement.identity(spec), random_block(spec, 2, 2, generator)
    assert relative_error(one.act(U), U) == 0
    assert relative_error(g.act(f.act(U)), (g @ f).act(U)) < TOLERANCE
    assert relative_error((~g).act(g.act(U)), U) < TOLERANCE
    assert same(g @ f @ k, g @ (f @ k))
    assert same(g @ one, g)
    assert same(one @ g, g)
    assert same(g @ ~g, one)
    assert same(~~g, g)


@settings(max_examples=40, deadline=None)
@given(spec=feed_forward_specs, seed=seeds)
def test_group_axioms_of_a_feed_forward_network(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    f, g = (MonomialElement.sample(spec, generator) for _ in range(2))
    U = random_feed_forward(spec, 2, 2, generator)
    assert relative_error(MonomialElement.identity(spec).act(U), U) == 0
    assert relative_error(g.act(f.act(U)), (g @ f).act(U)) < TOLERANCE
    assert relative_error((~g).act(g.act(U)), U) < TOLERANCE


@pytest.mark.parametrize("condition", [1.0, 7.0, 1e3])
def test_matrices_have_the_condition_number_asked_for(generator, condition):
    g = BlockElement.sample(BlockSpec(3, 4, 5, 2, 4), generator, condition)
    for matrix, inverse in ((g.M, g.M_inverse), (g.N, g.N_inverse)):
        found = torch.linalg.cond(matrix)
        assert torch.allclose(found, torch.full_like(found, condition), rtol=1e-9)
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand_as(matrix)
        assert relative_error(matrix @ inverse, identity) < TOLERANCE


def test_one_seed_gives_one_element():
    first, second = (GroupElement.sample(SPEC, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(same(g, f) for g, f in zip(first.blocks, second.blocks, strict=True))


def test_the_action_keeps_the_function_of_random_networks(generator):
    """Every block another shape, D_k != D_v, and the classifier's hidden neurons moved as well."""
    U = random_transformer(SPEC, 3, generator)
    images = torch.randn(1, 5, 2, 4, 9, generator=generator, dtype=torch.float64)
    g, f = (GroupElement.sample(SPEC, generator, 1e3, classifier=True) for _ in range(2))
    before = image_logits(images, U)
    assert relative_error(image_logits(images, g.act(U)), before) < TOLERANCE
    assert relative_error(image_logits(images, (g @ f).act(U)), before) < TOLERANCE
    assert relative_error((~g).act(g.act(U)), U) < TOLERANCE
    assert relative_error(g.act(U), U) > 1e-2


def test_a_wrong_action_changes_the_function(generator):
    U = random_transformer(SPEC, 1, generator)
    images = torch.randn(1, 5, 2, 4, 9, generator=generator, dtype=torch.float64)
    g = GroupElement.sample(SPEC, generator)
    first = g.blocks[0]
    wrong = GroupElement((BlockElement(**{**vars(first), "pi_A": first.pi_A, "M_inverse": first.M}), *g.blocks[1:]))
    assert relative_error(image_logits(images, wrong.act(U)), image_logits(images, U)) > 1e-3
