"""The measure of symmetry: small for layers, large for deliberately wrong maps, and never silent about a NaN."""

import math

import pytest
import torch
from symmetry import random_block, random_feed_forward

from nfn_transformer import (
    BlockElement,
    BlockSpec,
    EquivariantBlockLayer,
    FeedForwardSpec,
    HNPSLayer,
    HNPSPooling,
    MonomialElement,
    PermutationElement,
    assert_equivariant,
    equivariance_error,
    relu,
)
from nfn_transformer.groups.equivariance_error import relative_error

BLOCK = BlockSpec(heads=2, width=5, key=3, value=2, hidden=4)
CLASSIFIER = FeedForwardSpec((4, 5, 6, 3))


@pytest.fixture
def block(generator):
    return random_block(BLOCK, 2, 1, generator)


def test_a_layer_passes_as_it_is_in_float32_by_a_group_an_element_or_several(block, generator):
    layer = EquivariantBlockLayer(BLOCK, 1, 3)
    few = block.to(torch.float32)
    for elements in (BlockElement, BlockElement.sample(BLOCK, generator), [BlockElement.sample(BLOCK, generator)] * 2):
        assert_equivariant(layer, elements, few)
        assert equivariance_error(layer, elements, few) < 1e-9
    double = EquivariantBlockLayer(BLOCK, 1, 3).double()
    assert_equivariant(lambda U: relu(double(U)), BlockElement, block)


def test_the_module_and_the_weights_stay_as_they_are(block):
    layer, few = EquivariantBlockLayer(BLOCK, 1, 3), block.to(torch.float32)
    equivariance_error(layer, BlockElement, few)
    assert layer.phi_A.dtype == few.W_Q.dtype == torch.float32


WRONG = {
    "relu of queries": lambda layer: lambda U: layer(U).map(torch.relu),
    "transposed output": lambda layer: lambda U: layer(U).map(lambda tensor: tensor.flip(-1)),
    "one hidden neuron": lambda layer: lambda U: layer(U).W_A[..., 0],
    "not invariant": lambda layer: lambda U: layer(U).W_A,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_deliberately_wrong_map_fails(block, name):
    wrong = WRONG[name](EquivariantBlockLayer(BLOCK, 1, 3).double())
    assert equivariance_error(wrong, BlockElement, block) > 1e-3
    with pytest.raises(AssertionError, match=r"equivariance error .*, expected at most 1\.0e-09"):
        assert_equivariant(wrong, BlockElement, block)


def test_a_bias_of_each_hidden_neuron_fails(generator):
    layer, bias = HNPSLayer(CLASSIFIER, 2, 2).double(), torch.arange(5.0, dtype=torch.float64)

    def with_bias(U):
        V = layer(U)
        return type(V)(V.weights, (V.biases[0] + bias, *V.biases[1:]))

    U = random_feed_forward(CLASSIFIER, 2, 2, generator)
    assert_equivariant(layer, MonomialElement, U)
    assert_equivariant(HNPSPooling(CLASSIFIER, 2), MonomialElement, U)
    for group in (MonomialElement, PermutationElement):
        with pytest.raises(AssertionError, match="equivariance error"):
            assert_equivariant(with_bias, group, U)


def test_the_largest_error_of_all_elements_counts(block, generator):
    elements = [BlockElement.identity(BLOCK), BlockElement.sample(BLOCK, generator), BlockElement.identity(BLOCK)]
    assert equivariance_error(lambda U: U.W_A, elements[0], block) == 0
    assert equivariance_error(lambda U: U.W_A, elements, block) > 0.1


def test_nan_is_an_error_wherever_it_stands(block):
    for index in (0, -1):

        def spoiled(U, index=index):
            W_A = U.W_A.clone()
            W_A.view(-1)[index] = math.nan
            return W_A

        assert math.isnan(equivariance_error(spoiled, BlockElement, block))
        with pytest.raises(AssertionError, match="equivariance error nan"):
            assert_equivariant(spoiled, BlockElement, block)


def test_relative_errors_by_hand():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 4.0])
    assert relative_error(a, b) == 0.5
    assert relative_error(a, torch.zeros(2)) == 2
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(1, 2\)"):
        relative_error(a, b[None])
