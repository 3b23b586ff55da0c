"""The group of a feed-forward network: the function stays, elements multiply and invert, an orbit has one form."""

from dataclasses import replace

import pytest
import torch
from random_networks import SPECS, inputs_of, random_networks

from nfn_transformer import NetworkElement, NetworkSpec, canonical_form, network_outputs
from nfn_transformer.groups.equivariance_error import relative_error


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
    for got, expected in (((g @ f).act(U), g.act(f.act(U))), ((~g).act(g.act(U)), U)):
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
