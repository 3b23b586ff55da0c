"""The equivariant and the invariant layer: exact symmetry, the term-by-term oracle, sensitivity, gradients."""

from dataclasses import fields, replace

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import Acting, random_block

from nfn_transformer import (
    BlockElement,
    BlockSpec,
    EquivariantBlockLayer,
    InvariantBlockLayer,
    SpecError,
    equivariance_error,
    relu,
)
from nfn_transformer.groups.equivariance_error import relative_error

SPEC = BlockSpec(heads=3, width=6, key=4, value=2, hidden=7)
TOLERANCE = 1e-9

specs = st.builds(BlockSpec, *(st.integers(1, 5) for _ in range(5)))
seeds = st.integers(0, 2**32)


def equivariant(spec=SPEC, d=2, e=3, seed=0, init_type="kaiming_normal"):
    generator = torch.Generator().manual_seed(seed)
    return EquivariantBlockLayer(spec, d, e, init_type, generator).double()


def invariant(spec=SPEC, d=2, e=3, seed=0):
    return InvariantBlockLayer(spec, d, e, "kaiming_normal", torch.Generator().manual_seed(seed)).double()


@settings(max_examples=30, deadline=None)
@given(spec=specs, d=st.integers(1, 3), e=st.integers(1, 3), seed=seeds, condition=st.sampled_from([1.0, 30.0, 1e3]))
def test_layers_commute_with_the_group(spec, d, e, seed, condition):
    generator = torch.Generator().manual_seed(seed)
    U = random_block(spec, 2, d, generator)
    g = BlockElement.sample(spec, generator, condition)
    E = equivariant(spec, d, e, seed)
    assert equivariance_error(E, g, U) < TOLERANCE
    assert equivariance_error(lambda W: relu(E(W)), g, U) < TOLERANCE
    assert equivariance_error(invariant(spec, d, e, seed), g, U) < TOLERANCE


@settings(max_examples=20, deadline=None)
@given(spec=specs, d=st.integers(1, 3), e=st.integers(1, 3), seed=seeds)
def test_layers_equal_the_term_by_term_oracle(spec, d, e, seed):
    U = random_block(spec, 2, d, torch.Generator().manual_seed(seed))
    E, I = equivariant(spec, d, e, seed), invariant(spec, d, e, seed)  # noqa: E741 - the symbols of the paper
    with torch.no_grad():
        assert relative_error(E(U), oracle.equivariant(E, U)) < TOLERANCE
        assert relative_error(I(U), oracle.invariant(I, U)) < TOLERANCE


def test_gradients_equal_those_of_the_oracle(generator):
    E, U = equivariant(), random_block(SPEC, 2, 2, generator)
    found = torch.autograd.grad(sum(t.square().sum() for t in E(U).tensors()), list(E.parameters()))
    expected = torch.autograd.grad(
        sum(t.square().sum() for t in oracle.equivariant(E, U).tensors()), list(E.parameters())
    )
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < TOLERANCE


@pytest.mark.parametrize(
    "init_type", ["pytorch_default", "kaiming_normal", "xavier_normal", "xavier_uniform", "uniform"]
)
def test_a_deep_float64_stack_is_invariant_for_every_initialisation(generator, init_type):
    layers = [equivariant(d=d, e=e, init_type=init_type) for d, e in [(1, 3), (3, 2)]]
    last = invariant(d=2, e=4)
    U, g = random_block(SPEC, 2, 1, generator), BlockElement.sample(SPEC, generator, 1e3)

    def stack(W):
        for layer in layers:
            W = relu(layer(W))
        return last(W)

    assert equivariance_error(stack, g, U) < TOLERANCE


def test_float32_is_invariant_to_1e_4(generator):
    layer = equivariant().float()
    U, g = random_block(SPEC, 2, 2, generator).to(torch.float32), BlockElement.sample(SPEC, generator, 10.0)
    g = g.to("cpu", torch.float32)
    assert equivariance_error(layer, g, U, dtype=None) < 1e-4


def test_every_output_depends_on_the_input_beyond_the_group(generator):
    """A layer that ignores an input is equivariant too: each input tensor must move the outputs it feeds."""
    E, I, U = equivariant(), invariant(), random_block(SPEC, 1, 2, generator)  # noqa: E741
    through_scalars = {"W_A", "b_A", "W_B", "b_B"}
    for name in (field.name for field in fields(U)):
        tensor = getattr(U, name)
        moved = replace(U, **{name: tensor + torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)})
        assert (I(moved) - I(U)).abs().min() > 1e-3, name
        before, after = E(U), E(moved)
        reached = through_scalars | ({name} if name.startswith("W_") else set())
        for output in reached:
            assert (getattr(after, output) - getattr(before, output)).abs().max() > 1e-3, (name, output)


def test_layers_are_not_more_symmetric_than_the_group(generator):
    """Q and K mixed by the same M, or hidden rows of W^B moved alone, is no symmetry of the network."""
    E, I, U = equivariant(), invariant(), random_block(SPEC, 1, 2, generator)  # noqa: E741
    M = torch.randn(SPEC.key, SPEC.key, generator=generator, dtype=torch.float64)

    def mix_both(W):
        return replace(W, W_Q=W.W_Q @ M.T, W_K=W.W_K @ M)

    def reorder_W_B(W):
        return replace(W, W_B=W.W_B.flip(2))

    assert equivariance_error(I, Acting(mix_both), U) > 1e-2
    assert equivariance_error(E, Acting(mix_both), U) > 1e-2
    assert equivariance_error(E, Acting(reorder_W_B), U) > 1e-2


def test_the_checker_catches_a_wrong_layer(generator):
    U, g = random_block(SPEC, 2, 2, generator), BlockElement.sample(SPEC, generator)
    E = equivariant()

    def relu_everywhere(W):
        return E(W).map(torch.relu)

    def first_hidden_neuron(W):
        return W.W_A[..., 0]

    assert equivariance_error(relu_everywhere, g, U) > 1e-3
    assert equivariance_error(first_hidden_neuron, g, U) > 1e-3


def test_every_parameter_gets_a_gradient(generator):
    U = random_block(SPEC, 2, 2, generator)
    for layer in (equivariant(), invariant()):
        out = layer(U)
        tensors = [out] if isinstance(out, torch.Tensor) else out.tensors()
        sum(t.square().sum() for t in tensors).backward()
        for name, parameter in layer.named_parameters():
            assert (parameter.grad != 0).all(), name


def test_weights_of_another_shape_are_refused(generator):
    U = random_block(replace(SPEC, hidden=8), 1, 2, generator)
    with pytest.raises(SpecError, match=r"'W_A' has shape \(1, 2, 6, 8\), expected \(b, d, 6, 7\)"):
        equivariant()(U)
    with pytest.raises(SpecError, match="have 1 channels, expected 2"):
        invariant()(random_block(SPEC, 1, 1, generator))
