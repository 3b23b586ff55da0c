"""Composed stacks equal the same layers called one after another, in value, gradients and symmetry."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_block

from nfn_transformer import (
    BlockElement,
    BlockSpec,
    EquivariantBlockLayer,
    InvariantBlockLayer,
    SpecError,
    equivariance_error,
    relu,
    stack_invariants,
)
from nfn_transformer.features.blocks import read_block
from nfn_transformer.groups.equivariance_error import relative_error

TOLERANCE = 1e-9

specs = st.builds(BlockSpec, *(st.integers(1, 5) for _ in range(5)))


def stack(spec, channels, outputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = list(itertools.pairwise(channels))
    layers = [EquivariantBlockLayer(spec, d, e, "kaiming_normal", generator).double() for d, e in sizes]
    return layers, InvariantBlockLayer(spec, channels[-1], outputs, "kaiming_normal", generator).double()


def one_after_another(layers, invariant, weights):
    for layer in layers:
        weights = relu(layer(weights))
    return invariant(weights)


# One network and many: Phi is pulled back where a table has no more rows than there are networks.
@settings(max_examples=40, deadline=None)
@given(
    spec=specs,
    channels=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    outputs=st.integers(1, 4),
    batch=st.sampled_from([1, 3, 60]),
    seed=st.integers(0, 2**32),
)
def test_a_composed_stack_equals_its_layers(spec, channels, outputs, batch, seed):
    layers, invariant = stack(spec, channels, outputs, seed)
    parameters = [parameter for layer in (*layers, invariant) for parameter in layer.parameters()]
    U = random_block(spec, batch, channels[0], torch.Generator().manual_seed(seed))
    expected = one_after_another(layers, invariant, U)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected_gradients = torch.autograd.grad((expected * direction).sum(), parameters, allow_unused=True)
    found = [stack_invariants(layers, invariant, U)]
    if channels[0] == 1:
        found.append(stack_invariants(layers, invariant, read_block(U)))
    for output in found:
        assert relative_error(output, expected) < TOLERANCE
        gradients = torch.autograd.grad((output * direction).sum(), parameters, allow_unused=True)
        for a, b in zip(gradients, expected_gradients, strict=True):
            assert (a is None) == (b is None)
            assert b is None or relative_error(a, b) < TOLERANCE


@pytest.mark.parametrize("batch", [2, 50])
def test_a_composed_stack_is_invariant(generator, batch):
    spec = BlockSpec(heads=3, width=6, key=4, value=2, hidden=7)
    layers, invariant = stack(spec, [2, 3, 2], 4)
    U, g = random_block(spec, batch, 2, generator), BlockElement.sample(spec, generator, 1e3)
    assert equivariance_error(lambda W: stack_invariants(layers, invariant, W), g, U) < TOLERANCE


def test_a_stack_refuses_weights_of_another_shape(generator):
    spec = BlockSpec(heads=1, width=3, key=2, value=2, hidden=4)
    layers, invariant = stack(spec, [2, 2], 1)
    with pytest.raises(SpecError, match="have 1 channels, expected 2"):
        stack_invariants(layers, invariant, random_block(spec, 1, 1, generator))


def test_nothing_as_large_as_expanded_attention_is_made(generator):
    """Where the invariant layer follows, no tensor of a step holds a D x D matrix for each network and channel."""
    spec = BlockSpec(heads=2, width=16, key=8, value=8, hidden=1)
    layers, invariant = stack(spec, [1, 8], 3)
    expanded = 256 * 8 * 16 * 16
    assert max(parameter.numel() for parameter in layers[0].parameters()) < expanded / 4, "or they would hide it"
    features = read_block(random_block(spec, 256, 1, generator))
    with _LargestTensor() as largest:
        stack_invariants(layers, invariant, features).sum().backward()
    assert largest.numbers < expanded / 4


class _LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Sees every tensor that an operation gives, in forward and backward."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result
