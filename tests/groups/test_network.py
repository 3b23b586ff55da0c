"""The group of a feed-forward network: the function stays, elements multiply and invert, an orbit has one form."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from random_networks import SPECS, inputs_of, random_networks

from nfn_transformer import NetworkElement, NetworkSpec, NetworkWeights, canonical_form, network_outputs
from nfn_transformer.groups.equivariance_error import relative_error

OMEGA = 30.0
SIREN = NetworkSpec((2, 32, 32, 1), (None,) * 3, "sine", OMEGA)


@pytest.mark.parametrize("name", SPECS)
def test_the_group_keeps_the_function(name, generator):
    spec, U = SPECS[name], random_networks(SPECS[name], 3, generator)
    before, g = network_outputs(inputs_of(spec), U), NetworkElement.sample(spec, generator, largest_scale=1e4)
    moved = g.act(U)
    assert relative_error(network_outputs(inputs_of(spec), moved), before) < 1e-9
    assert all(relative_error(a, b) > 0.01 for a, b in zip(moved.weights, U.weights, strict=True))
    assert before.std() > 0.01


def test_maps_that_are_added_to_the_outputs_stay(generator):
    spec = NetworkSpec((1, 5, 4, 3), ((3, 3),) * 3, paddings=(1, 1, 1), residuals=(-1, -1, 1))
    U, g = random_networks(spec, 3, generator), NetworkElement.sample(spec, generator)
    before = network_outputs(inputs_of(spec), U)
    assert relative_error(network_outputs(inputs_of(spec), g.act(U)), before) < 1e-9
    assert relative_error(g.act(U).weights[0], U.weights[0]) > 0.01


@pytest.mark.parametrize("name", SPECS)
def test_elements_multiply_and_invert(name, generator):
    spec, U = SPECS[name], random_networks(SPECS[name], 2, generator)
    g, f = (NetworkElement.sample(spec, generator) for _ in range(2))
    identity = NetworkElement.identity(spec)
    for got, expected in (((g @ f).act(U), g.act(f.act(U))), ((~g).act(g.act(U)), U), (identity.act(U), U)):
        assert relative_error(got, expected) < 1e-12


@pytest.mark.parametrize("name", SPECS)
def test_the_canonical_form_is_one_up_to_permutations(name, generator):
    spec, U = SPECS[name], random_networks(SPECS[name], 2, generator)
    g = NetworkElement.sample(spec, generator, largest_scale=1e4)
    form, moved = canonical_form(U, scales=True), canonical_form(g.act(U), scales=True)
    ones = tuple(torch.ones_like(factor) for factor in g.factors)
    zeros = tuple(torch.zeros_like(phase) for phase in g.phases)
    assert relative_error(moved.weights, NetworkElement(g.permutations, ones, zeros).act(form.weights)) < 1e-9
    if not spec.residuals:
        before = network_outputs(inputs_of(spec), U)
        assert relative_error(network_outputs(inputs_of(spec), form.weights), before) < 1e-9


@pytest.mark.parametrize(("name", "changes"), [("siren", {"omega": 31.0}), ("gelu cnn", {"activation": "tanh"})])
def test_elements_of_other_activations_change_the_function(name, changes, generator):
    spec, other = SPECS[name], replace(SPECS[name], **changes)
    U = random_networks(spec, 2, generator)
    moved = NetworkElement.sample(other, generator).act(replace(U, spec=other))
    before = network_outputs(inputs_of(spec), U)
    assert relative_error(network_outputs(inputs_of(spec), replace(moved, spec=spec)), before) > 1e-3


def sirens(seed: int) -> NetworkWeights:
    """Three networks as SIRENs are initialised, with biases of several periods."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, bound: float) -> torch.Tensor:
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * bound

    sides = list(pairwise(SIREN.sizes))
    weights = tuple(uniform(3, out, into, bound=math.sqrt(6 / into) / OMEGA) for into, out in sides)
    return NetworkWeights(SIREN, weights, tuple(uniform(3, out, bound=9 / OMEGA) for _, out in sides))


def on_a_grid(U: NetworkWeights) -> torch.Tensor:
    line = torch.linspace(-1, 1, 7, dtype=torch.float64)
    return network_outputs(torch.cartesian_prod(line, line), U)


def assert_close(first: NetworkWeights, second: NetworkWeights) -> None:
    for tensor, other in zip(first.tensors(), second.tensors(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=1e-13)


def test_the_pass_of_sirens_is_that_of_pytorch_modules():
    U = sirens(0)
    line = torch.linspace(-1, 1, 7, dtype=torch.float64)
    for number, expected in enumerate(on_a_grid(U)):
        values = torch.cartesian_prod(line, line)
        for layer in range(3):
            values = torch.nn.functional.linear(values, U.weights[layer][number], U.biases[layer][number])
            values = torch.sin(OMEGA * values) if layer < 2 else values
        torch.testing.assert_close(expected, values, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_phases_of_sirens(seed, generator):
    U, g, f = sirens(seed), *(NetworkElement.sample(SIREN, generator) for _ in range(2))
    moved = g.act(U)
    assert (on_a_grid(moved) - on_a_grid(U)).abs().max() < 1e-12
    assert all((a - b).abs().max() > 0.01 for a, b in zip(moved.biases[:-1], U.biases[:-1], strict=True))
    # A phase of another frequency is another function.
    wrong = g.act(replace(U, spec=replace(SIREN, omega=OMEGA * 1.01)))
    assert (on_a_grid(replace(wrong, spec=SIREN)) - on_a_grid(U)).abs().max() > 1e-3
    assert_close((g @ f).act(U), g.act(f.act(U)))
    assert_close((~g).act(moved), U)
    assert_close(NetworkElement.identity(SIREN).act(U), U)


@pytest.mark.parametrize("seed", range(3))
def test_canonical_phases(seed, generator):
    U, g = sirens(seed), NetworkElement.sample(SIREN, generator)
    form = canonical_form(U, signs=False).weights
    assert (on_a_grid(form) - on_a_grid(U)).abs().max() < 1e-12
    assert all(bias.abs().max() <= math.pi / (2 * OMEGA) for bias in form.biases[:-1])
    assert_close(canonical_form(form, signs=False).weights, form)
    # Of the whole group, permutations and signs are left.
    rest = replace(g, phases=NetworkElement.identity(SIREN).phases)
    assert_close(canonical_form(g.act(U), signs=False).weights, rest.act(form))


def test_signs_keep_the_function_of_tanh(generator):
    U = replace(sirens(0), spec=replace(SIREN, activation="tanh"))
    g = NetworkElement.sample(U.spec, generator)
    assert set(torch.cat(g.factors).tolist()) == {1.0, -1.0}
    assert (on_a_grid(g.act(U)) - on_a_grid(U)).abs().max() < 1e-13
