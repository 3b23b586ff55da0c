"""The group of standard transformers: the function stays, elements multiply and invert, controls change it."""

from dataclasses import replace

import pytest
from standard_networks import STANDARD_SPECS, inputs_of, random_standard

from nfn_transformer import StandardElement, standard_canonical_form, standard_outputs, symmetry_dimensions
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.groups.standard_form import standard_canonical_spec

KINDS = pytest.mark.parametrize("name", STANDARD_SPECS)


@KINDS
def test_the_group_keeps_the_function(name, generator):
    spec, U = STANDARD_SPECS[name], random_standard(STANDARD_SPECS[name], 2, generator)
    before, g = standard_outputs(inputs_of(spec), U), StandardElement.sample(spec, generator)
    form, moved = standard_canonical_form(U), g.act(U)
    assert before.std() > 0.01
    assert relative_error(standard_outputs(inputs_of(spec), form), before) < 1e-9
    assert relative_error(standard_outputs(inputs_of(spec), moved), before) < 1e-9
    for role in ("W_Q", "W_K", "W_V", "W_O", "W_1", "W_2"):
        assert relative_error(vars(moved.blocks[1])[role], vars(form.blocks[1])[role]) > 0.01, role


@KINDS
def test_canonical_forms_are_idempotent(name, generator):
    spec, U = STANDARD_SPECS[name], random_standard(STANDARD_SPECS[name], 2, generator)
    for scales in (False, True):
        form = standard_canonical_form(U, scales)
        assert form.spec == standard_canonical_spec(spec) == standard_canonical_spec(form.spec)
        form.check(form.spec)
        assert relative_error(standard_canonical_form(form, scales), form) < 1e-12
        assert relative_error(standard_outputs(inputs_of(spec), form), standard_outputs(inputs_of(spec), U)) < 1e-9


@KINDS
def test_elements_multiply_and_invert(name, generator):
    spec, U = STANDARD_SPECS[name], random_standard(STANDARD_SPECS[name], 2, generator)
    g, f = (StandardElement.sample(spec, generator) for _ in range(2))
    form = standard_canonical_form(U)
    for got, expected in (((g @ f).act(U), g.act(f.act(U))), ((~g).act(g.act(U)), form)):
        assert relative_error(got, expected) < 1e-10
    assert relative_error(standard_canonical_form(g.act(U)), g.act(U)) < 1e-12


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("vit", {"norm": "rms"}),  # an orthogonal R that moves the ones
        ("bert", {"placement": "pre"}),
        ("llama", {"positions": "none"}),  # any M in GL(d_k)
        ("gpt", {"activation": "relu"}),
        ("post-norm of vectors", {"gated": True}),  # negative factors
        ("encoder alone", {"head_sizes": (8, 3), "inputs": "words", "vocabulary": 2}),
    ],
)
def test_elements_of_other_kinds_change_the_function(name, wrong, generator):
    spec, U = STANDARD_SPECS[name], random_standard(STANDARD_SPECS[name], 2, generator)
    g = replace(StandardElement.sample(replace(spec, **wrong), generator), embedding=None)
    before = standard_outputs(inputs_of(spec), U)
    assert relative_error(standard_outputs(inputs_of(spec), g.act(U)), before) > 0.01


def test_dimensions_count_what_matrices_move():
    counts = symmetry_dimensions(STANDARD_SPECS["llama"])
    assert counts == {
        **{"stream": 28, "embedding": 0, "queries and keys": 2 * 2 * 4, "values and outputs": 2 * 2 * 9},
        **{"neurons": 2 * 6, "head": 0},
    }
    assert symmetry_dimensions(STANDARD_SPECS["simple vit"])["stream"] == 21
    assert symmetry_dimensions(STANDARD_SPECS["simple vit"])["embedding"] == 21
    assert symmetry_dimensions(STANDARD_SPECS["bert"])["stream"] == 0
