"""Scales of inputs: known values, groups that share one, and what they do to symmetric layers' inputs: nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_block

from nfn_transformer import BlockSpec, BlockWeights
from nfn_transformer.features.blocks import read_block
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.layers.scaling import Reiterable, RootMeanSquares, Standardize

SEEN = torch.tensor([[1.0, 10.0, 20.0, 5.0], [3.0, 30.0, 40.0, 5.0]])


def test_each_number_by_itself():
    scale = Standardize([1, 1, 1, 1])
    scale.fit([SEEN])
    assert scale.mean.tolist() == [2, 20, 30, 5]
    assert scale.deviation.tolist() == pytest.approx([1, 10, 10, 1e-12])
    assert torch.allclose(scale(SEEN), torch.tensor([[-1.0, -1, -1, 0], [1, 1, 1, 0]]))
    far = torch.tensor([[100.0, 20.0, 30.0, 5.0]])
    assert scale(far).tolist() == [[4, 0, 0, 0]]


def test_groups_share_mean_and_deviation():
    scale = Standardize([1, 2, 1], least=0.5)
    scale.fit([SEEN])
    assert scale.mean.tolist() == [2, 25, 5]
    assert scale.deviation.tolist() == pytest.approx([1, 125**0.5, 0.5])
    assert torch.allclose(scale(SEEN)[:, 1:3], (SEEN[:, 1:3] - 25) / 125**0.5)


def test_log_magnitudes_are_those_of_the_mean_magnitude():
    scale = Standardize([2, 1], log_magnitudes=True)
    seen = torch.tensor([[2.0, -4.0, 0.0], [0.0, 10.0, -6.0]])
    scale.fit([seen])
    units = [80 ** (1 / 3), 6.0]
    assert scale.unit.tolist() == pytest.approx(units)
    together = (1 + seen[:, :2].abs() / units[0]).log() * torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    expected = (together - together.mean()) / together.std(correction=0)
    assert torch.allclose(scale(seen)[:, :2], expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.booleans(), st.integers(1, 7), st.integers(0, 2**32))
def test_scales_do_not_depend_on_the_parts_in_which_networks_are_seen(groups, logarithmic, size, seed):
    seen = torch.randn(9, sum(groups), generator=torch.Generator().manual_seed(seed)) * 10 + 3
    whole, parts = (Standardize(groups, log_magnitudes=logarithmic) for _ in range(2))
    whole.fit([seen])
    parts.fit(Reiterable(lambda: iter(seen.split(size))))
    for name, buffer in whole.state_dict().items():
        assert torch.allclose(buffer, parts.state_dict()[name], rtol=1e-6), name
    assert whole(seen).abs().max() <= 4


def test_sizes_are_root_mean_squares():
    sizes = RootMeanSquares(2)
    first, second = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.full((2, 1, 3), 2.0)
    sizes.fit(iter([(first[:1], second[:1]), (first[1:], second[1:])]))
    assert sizes().tolist() == pytest.approx([(25 / 4) ** 0.5, 2.0])


def test_divided_features_are_those_of_the_divided_block(generator):
    """Each tensor divided by a number is an element that the group's action commutes with."""
    block = random_block(BlockSpec(2, 5, 3, 2, 4), 3, 1, generator)
    root = 7.0**0.5
    divided = BlockWeights(
        W_Q=block.W_Q / root, W_K=block.W_K / root, W_V=block.W_V / 3, W_O=block.W_O,
        W_A=block.W_A / 5, b_A=block.b_A / 11, W_B=block.W_B / 13, b_B=block.b_B / 17,
    )  # fmt: skip
    sizes = torch.tensor([7.0, 3, 5, 11, 13, 17], dtype=torch.float64)
    found, expected = read_block(block).divided(sizes), read_block(divided)
    for a, b in zip(found.tensors(), expected.tensors(), strict=True):
        assert relative_error(a, b) < 1e-12
    for part, divisor, own in zip(found.parts, sizes, read_block(block).parts, strict=True):
        assert relative_error(part * divisor, own) < 1e-12
