"""State dict -> weights -> state dict is exact for any sizes, and bad state dicts are named."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfn_transformer import (
    BlockSpec,
    EmbeddingSpec,
    FeedForwardSpec,
    SpecError,
    TransformerSpec,
    spec_from_shapes,
    state_dict_from_weights,
    state_dict_shapes,
    weights_from_state_dict,
)
from nfn_transformer.weights.state_dicts import (
    flatten_state_dict,
    is_known_key,
    required_keys,
    row_length,
    unflatten_rows,
)

size = st.integers(1, 4)


@st.composite
def transformer_specs(draw):
    heads, width = draw(size), draw(size)
    blocks = [BlockSpec(heads, width, draw(size), draw(size), draw(size)) for _ in range(draw(st.integers(1, 4)))]
    embedding = EmbeddingSpec(draw(size), width, (draw(size), draw(size)), draw(size)) if draw(st.booleans()) else None
    return TransformerSpec(tuple(blocks), FeedForwardSpec((width, draw(size), draw(size))), embedding)


def random_state(spec, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    shapes = state_dict_shapes(spec)
    return {key: torch.randn(*batch, *shape, generator=generator) for key, shape in shapes.items()}


@settings(max_examples=50, deadline=None)
@given(spec=transformer_specs(), batch=st.integers(1, 3))
def test_round_trip_is_exact(spec, batch):
    state = random_state(spec, batch=(batch,))
    weights = weights_from_state_dict(state, spec)
    weights.check(spec)
    back = state_dict_from_weights(weights)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


@settings(max_examples=50, deadline=None)
@given(spec=transformer_specs())
def test_spec_is_read_from_shapes(spec):
    assert spec_from_shapes({**state_dict_shapes(spec), "stray": (3,)}, spec.blocks[0].heads) == spec


@settings(max_examples=30, deadline=None)
@given(spec=transformer_specs())
def test_flat_rows_give_the_state_dicts_back(spec):
    shapes = state_dict_shapes(spec)
    states = [random_state(spec, seed) for seed in range(3)]
    rows = torch.empty(3, row_length(shapes))
    for row, state in zip(rows, states, strict=True):
        flatten_state_dict(state, shapes, row)
    stacked = unflatten_rows(rows, shapes)
    assert all(torch.equal(stacked[key][i], states[i][key]) for key in shapes for i in range(3))


def test_heads_are_contiguous_rows_of_the_projections():
    spec = TransformerSpec((BlockSpec(2, 3, 4, 5, 6),), FeedForwardSpec((3, 3, 2)))
    state = random_state(spec)
    block = weights_from_state_dict(state, spec).blocks[0]
    queries, output = state["encoder.0.attention.queries.weight"], state["encoder.0.attention.out_projection.weight"]
    assert torch.equal(block.W_Q[0, 0, 1], queries[4:8].T)
    assert torch.equal(block.W_O[0, 0, 1], output.T[5:10])
    assert torch.equal(block.W_A[0, 0], state["encoder.0.fc1.weight"].T)


SHAPES = state_dict_shapes(TransformerSpec((BlockSpec(2, 4, 2, 2, 6),) * 2, FeedForwardSpec((4, 3, 2))))


@pytest.mark.parametrize(
    ("change", "heads", "message"),
    [
        ({"encoder.1.fc2.bias": None}, 2, "missing key 'encoder.1.fc2.bias'"),
        ({"encoder.0.fc1.weight": None}, 2, "missing key 'encoder.0.fc1.weight'"),
        ({"encoder.1.fc1.bias": (5,)}, 2, r"'encoder.1.fc1.bias' has shape \(5,\), expected \(6,\)"),
        ({"classifier.fc1.weight": (3,)}, 2, r"'classifier.fc1.weight' has shape \(3,\), expected 2 dimensions"),
        ({}, 3, "'encoder.0.attention.queries.weight' has 4 rows, which 3 heads do not divide"),
        ({"embedding.conv1.bias": (4,)}, 2, "missing key 'embedding.conv1.weight'"),
        ({"encoder.7.fc1.bias": (6,)}, 2, "missing key 'encoder.2.attention.queries.weight'"),
    ],
)
def test_bad_shapes_are_named(change, heads, message):
    shapes = {key: shape for key, shape in {**SHAPES, **change}.items() if shape is not None}
    with pytest.raises(SpecError, match=message):
        spec_from_shapes(shapes, heads)


def test_a_state_dict_of_another_spec_is_refused():
    spec = spec_from_shapes(SHAPES, 2)
    state = random_state(spec)
    state["encoder.0.fc1.weight"] = torch.zeros(6, 5)
    with pytest.raises(SpecError, match=r"'encoder.0.fc1.weight' has shape \(6, 5\), expected \(6, 4\)"):
        weights_from_state_dict(state, spec)


def test_features_are_no_state_dict():
    weights = weights_from_state_dict(random_state(spec_from_shapes(SHAPES, 2)), spec_from_shapes(SHAPES, 2))
    doubled = weights.map(lambda tensor: tensor.expand(-1, 2, *tensor.shape[2:]))
    with pytest.raises(SpecError, match="2 channels, expected 1"):
        state_dict_from_weights(doubled)


def test_keys_of_other_architectures_are_unknown():
    assert is_known_key("encoder.11.attention.values.weight")
    assert not is_known_key("encoder.0.attention.queries.bias")
    assert not is_known_key("encoder.x.fc1.weight")


@pytest.mark.parametrize("number", ["00", "01", "-1", "12345", "9" * 5000, "\u0663", "1\n"])
def test_a_block_has_one_short_number(number):
    assert not is_known_key(f"encoder.{number}.fc1.weight")
    assert required_keys({f"encoder.{number}.fc1.weight"}) == required_keys(set())


def test_a_stray_huge_block_number_makes_no_huge_list():
    assert len(required_keys({"encoder.9999.fc1.weight"})) == 20
