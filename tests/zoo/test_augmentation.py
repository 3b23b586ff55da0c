"""Transformed copies: the same functions, elements as they are announced, and where a zoo's copies go."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_block

from nfn_transformer.errors import ZooError
from nfn_transformer.groups.complete import CompleteElement
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.groups.published import BlockElement
from nfn_transformer.groups.random_elements import (
    MOST_CONDITION,
    act_each,
    sample_uniform,
    transform_each,
    transform_one_by_one,
)
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.augmentation import enlarge
from nfn_transformer.training.data import split_runs
from nfn_transformer.weights.forward import image_logits
from nfn_transformer.weights.spec import BlockSpec

SIDES = ("train", "validation", "test")


def element(elements: BlockElement, index: int) -> BlockElement:
    """One of many."""
    return BlockElement(*(getattr(elements, field.name)[index] for field in fields(elements)))


@pytest.fixture
def double(small):
    """All networks of the small zoo in float64."""
    return small.weights(torch.arange(len(small))).to(torch.float64)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_copies_are_the_same_functions(small, double, scale, generator):
    images = torch.rand(1, 20, 1, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    copies = transform_each(double, small.spec, scale, generator)
    assert relative_error(image_logits(images, copies), image_logits(images, double)) < 1e-9
    for block, original in zip(copies.blocks, double.blocks, strict=True):
        for name in ("W_Q", "W_K", "W_V", "W_O", "W_A", "b_A", "W_B"):
            moved, stays = getattr(block, name), getattr(original, name)
            assert all(relative_error(moved[i], stays[i]) > 1e-2 for i in range(len(small))), name
        assert torch.equal(block.b_B, original.b_B)
    assert copies.classifier is double.classifier
    assert copies.embedding is double.embedding


def test_copies_with_another_classifier_are_the_same_functions(small, double, generator):
    images = torch.rand(1, 20, 1, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    copies = transform_each(double, small.spec, 1.0, generator, classifier=True)
    assert relative_error(image_logits(images, copies), image_logits(images, double)) < 1e-9
    for moved, stays in zip(copies.classifier.weights, double.classifier.weights, strict=True):
        assert all(relative_error(moved[i], stays[i]) > 1e-2 for i in range(len(small)))


def test_permuted_copies_are_the_same_functions_with_the_same_numbers(small, double, generator):
    images = torch.rand(1, 20, 1, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    samples = (CompleteElement.sample_permutations(small.spec, generator) for _ in range(len(small)))
    copies = transform_one_by_one(samples, double)
    assert relative_error(image_logits(images, copies), image_logits(images, double)) < 1e-9
    for moved, stays in zip(copies.tensors(), double.tensors(), strict=True):
        assert torch.equal(moved.flatten(1).sort(1).values, stays.flatten(1).sort(1).values)
    for block, original in zip(copies.blocks, double.blocks, strict=True):
        assert all(relative_error(*pair) > 1e-2 for pair in zip(block.tensors(), original.tensors(), strict=True))


def test_copies_have_the_dtype_of_their_originals(small, double):
    def copies_of(weights):
        return transform_each(weights, small.spec, 1.0, torch.Generator().manual_seed(5)).blocks[1]

    single = small.weights(torch.arange(len(small)))
    copies, expected = copies_of(single), copies_of(double)
    assert {tensor.dtype for tensor in copies.tensors()} == {torch.float32}
    assert all(torch.equal(a, b.float()) for a, b in zip(copies.tensors(), expected.tensors(), strict=True))


def test_acting_with_many_is_acting_with_each(generator):
    spec = BlockSpec(heads=3, width=6, key=2, value=4, hidden=5)
    elements, block = sample_uniform(spec, 7, 2.0, generator), random_block(spec, 7, 2, generator)
    together = act_each(elements, block)
    for index in range(7):
        alone = element(elements, index).act(block[index : index + 1])
        assert relative_error(together[index : index + 1], alone) < 1e-13


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    key=st.integers(1, 9),
    value=st.integers(1, 9),
    heads=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_elements_are_as_announced(scale, key, value, heads, seed):
    spec = BlockSpec(heads=heads, width=5, key=key, value=value, hidden=4)
    elements = sample_uniform(spec, 20, scale, torch.Generator().manual_seed(seed))
    for matrix, inverse, size in (
        (elements.M, elements.M_inverse, key),
        (elements.N, elements.N_inverse, value),
    ):
        assert matrix.shape == inverse.shape == (20, heads, size, size)
        assert matrix.dtype == torch.float64
        assert matrix.abs().max() <= scale
        assert matrix.min() < 0 < matrix.max()
        assert torch.linalg.cond(matrix).max() <= MOST_CONDITION == 1e4
        identity = torch.eye(size, dtype=torch.float64).expand_as(matrix)
        assert relative_error(matrix @ inverse, identity) < 1e-10
        assert relative_error(inverse @ matrix, identity) < 1e-10
    for permutations, size in ((elements.tau, heads), (elements.pi_O, 5), (elements.pi_A, 4)):
        assert torch.equal(permutations.sort(dim=1).values, torch.arange(size).expand(20, size))


def test_ill_conditioned_matrices_are_drawn_again():
    """More than one matrix in a hundred exceeds the bound without new draws, and none with them."""
    spec = BlockSpec(heads=4, width=2, key=8, value=8, hidden=2)
    elements = sample_uniform(spec, 5000, 1.0, torch.Generator().manual_seed(1))
    conditions = torch.linalg.cond(torch.cat([elements.M, elements.N]))
    assert MOST_CONDITION / 2 < conditions.max() <= MOST_CONDITION
    plain = 2 * torch.rand(40000, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    assert torch.linalg.cond(plain).max() > MOST_CONDITION


def test_entries_fill_their_range_evenly():
    spec = BlockSpec(heads=4, width=16, key=8, value=8, hidden=32)
    elements = sample_uniform(spec, 500, 2.0, torch.Generator().manual_seed(1))
    for entries in (elements.M.flatten(), elements.N.flatten()):
        assert entries.abs().max() > 1.999
        assert entries.mean().item() == pytest.approx(0, abs=0.02)
        assert entries.var().item() == pytest.approx(2.0**2 / 3, rel=0.02)
    firsts = elements.pi_O[:, 0].bincount(minlength=16)
    assert firsts.min() > 10  # 31 expected
    assert elements.tau[:, 0].bincount(minlength=4).min() > 80  # 125 expected


def test_elements_differ_between_networks_heads_and_blocks(small):
    spec = small.spec.blocks[0]
    elements = sample_uniform(spec, 12, 1.0, torch.Generator().manual_seed(1))
    matrices = torch.cat([elements.M.flatten(0, 1), elements.N.flatten(0, 1)])
    assert len({tuple(matrix.flatten().tolist()) for matrix in matrices}) == 2 * 12 * spec.heads
    for permutations in (elements.pi_O, elements.pi_A):
        assert len({tuple(p.tolist()) for p in permutations}) == 12
    same = small.weights(torch.tensor([3] * 12)).to(torch.float64)
    same = type(same)((same.blocks[0], same.blocks[0]), same.classifier, same.embedding)
    blocks = transform_each(same, small.spec, 1.0, torch.Generator().manual_seed(1)).blocks
    for name in ("W_Q", "W_K", "W_V", "W_A"):
        copies = torch.cat([getattr(block, name) for block in blocks])
        assert len({tuple(copy.flatten().tolist()) for copy in copies}) == 24, name


@pytest.mark.parametrize(("enc_mode", "invariant"), [("inv", True), ("mlp", False)])
def test_transformer_nfn_predicts_the_same_for_copies_and_flattened_weights_do_not(
    small, double, enc_mode, invariant, generator
):
    model = build_predictor(small.spec, ModelConfig(enc_mode=enc_mode), seed=1).double()
    copies = transform_each(double, small.spec, 1.0, generator)
    with torch.no_grad():
        error = relative_error(model.predict(copies), model.predict(double))
    assert error < 1e-9 if invariant else error > 1e-2


@pytest.mark.parametrize("factor", [2, 3])
def test_each_side_grows_by_copies_of_its_own_members(small, factor):
    split = split_runs(small.runs, 1)
    zoo, grown = enlarge(small, split, factor, 1.0, seed=7)
    assert len(zoo) == len(zoo.rows) == len(zoo.labels) == len(zoo.runs) == factor * len(small)
    assert len(set(zoo.names)) == len(zoo)
    assert torch.equal(zoo.rows[: len(small)], small.rows)
    assert torch.equal(zoo.labels[: len(small)], small.labels)
    assert (zoo.names[: len(small)], zoo.runs[: len(small)]) == (small.names, small.runs)
    assert sorted(torch.cat([getattr(grown, side) for side in SIDES]).tolist()) == list(range(len(zoo)))
    for side in SIDES:
        originals, members = getattr(split, side), getattr(grown, side)
        assert torch.equal(members[: len(originals)], originals)
        origin = originals.repeat(factor)
        assert len(members) == len(origin)
        assert torch.equal(zoo.labels[members], small.labels[origin])
        for member, source in zip(members.tolist(), origin.tolist(), strict=True):
            assert zoo.runs[member] == small.runs[source]
            assert zoo.names[member].startswith(small.names[source])
        assert len(zoo.rows[members].unique(dim=0)) == len(members)
        images = torch.rand(1, 10, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
        logits, expected = (
            image_logits(images, z.weights(i).to(torch.float64)) for z, i in ((zoo, members), (small, origin))
        )
        assert relative_error(logits, expected) < 1e-2  # the copies are rounded to float32
        assert relative_error(logits.roll(1, 0), expected) > 0.1


def test_the_seed_decides_the_copies(small):
    split = split_runs(small.runs, 1)
    first, second, other = (enlarge(small, split, 2, 1.0, seed)[0].rows for seed in (7, 7, 8))
    assert torch.equal(first, second)
    copies, others = first[len(small) :], other[len(small) :]
    assert (copies != others).any(dim=1).all()
    assert torch.equal(enlarge(small, split, 3, 1.0, 7)[0].rows[: len(small)], small.rows)


def test_factor_one_changes_nothing(small):
    split = split_runs(small.runs, 1)
    zoo, same = enlarge(small, split, 1, 1.0, seed=7)
    assert torch.equal(zoo.rows, small.rows)
    assert zoo.names == small.names
    assert all(torch.equal(getattr(same, side), getattr(split, side)) for side in SIDES)


def test_a_copy_beyond_float32_is_refused(small):
    huge = replace(small, rows=small.rows * 1e38)
    with pytest.raises(ZooError, match=r"\.pt: a transformed copy is beyond float32"):
        enlarge(huge, split_runs(small.runs, 1), 2, 1.0, seed=1)
