"""The complete group: axioms, and that it keeps the function of trained and of random networks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_transformer

from nfn_transformer import (
    BlockSpec,
    CompleteElement,
    EmbeddingSpec,
    FeedForwardSpec,
    TransformerSpec,
    image_logits,
    word_logits,
)
from nfn_transformer.generation.images import digits
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.weights import forward

TOLERANCE = 1e-9


def _spec(heads: int, key: int, value: int, hidden: int, blocks: int, with_embedding: bool) -> TransformerSpec:
    block = BlockSpec(heads, 6, key, value, hidden)
    embedding = EmbeddingSpec(2, 6, (2, 3), 4) if with_embedding else None
    return TransformerSpec((block,) * blocks, FeedForwardSpec((6, 5, 3)), embedding)


sizes = st.integers(1, 4)
specs = st.builds(_spec, sizes, sizes, sizes, sizes, st.integers(1, 3), st.booleans())
SPEC = _spec(2, 3, 2, 4, 2, with_embedding=True)


@pytest.fixture
def without_epsilon(monkeypatch) -> None:
    """LayerNorms that only divide: their epsilon is what the scales before a LayerNorm meet."""
    monkeypatch.setattr(forward, "LAYER_NORM_EPSILON", 0.0)


@settings(max_examples=40, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32))
def test_group_axioms(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    f, g, k = (CompleteElement.sample(spec, generator) for _ in range(3))
    U, one = random_transformer(spec, 2, generator), CompleteElement.identity(spec)
    assert relative_error(one.act(U), U) == 0
    assert relative_error(g.act(f.act(U)), (g @ f).act(U)) < TOLERANCE
    assert relative_error((~g).act(g.act(U)), U) < TOLERANCE
    assert relative_error(g.act((~g).act(U)), U) < TOLERANCE
    assert relative_error((g @ f @ k).act(U), (g @ (f @ k)).act(U)) < TOLERANCE
    assert relative_error((~~g).act(U), g.act(U)) < TOLERANCE
    assert relative_error((g @ one).act(U), (one @ g).act(U)) < TOLERANCE


@settings(max_examples=40, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32))
def test_random_networks_of_images_and_texts_stay_what_they_are(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    U = random_transformer(spec, 2, generator)
    moved = CompleteElement.sample(spec, generator).without_scales().act(U)
    assert relative_error(moved, U) > 1e-3
    if spec.embedding is None:
        logits, inputs = word_logits, torch.randn(1, 5, 4, 6, generator=generator, dtype=torch.float64)
    else:
        logits, inputs = image_logits, torch.randn(1, 5, 2, 4, 6, generator=generator, dtype=torch.float64)
    assert relative_error(logits(inputs, moved), logits(inputs, U)) < TOLERANCE


def test_an_element_goes_where_the_weights_are(generator):
    U = random_transformer(SPEC, 2, generator)
    element = CompleteElement.sample(SPEC, generator)
    moved = element.to("cpu", torch.float32).act(U.to(torch.float32))
    assert all(tensor.dtype == torch.float32 for tensor in moved.tensors())
    assert relative_error(moved, element.act(U)) < 1e-5


def _trained(small) -> tuple:
    """The networks in float64, images, and the logits' relative change under an element."""
    index = torch.tensor([place for place, label in enumerate(small.labels.tolist()) if label > 0.3][:12])
    return small.weights(index).to(torch.float64), digits().test.inputs[None, :100].double()


def test_trained_networks_keep_their_logits_and_their_accuracy(small, generator):
    U, images = _trained(small)
    before, labels = image_logits(images, U), digits().test.labels[:100]
    for _ in range(3):
        element = CompleteElement.sample(small.spec, generator, condition=100.0).without_scales()
        after = image_logits(images, element.act(U))
        assert relative_error(after, before) < TOLERANCE
        assert torch.equal((after.argmax(-1) == labels).sum(1), (before.argmax(-1) == labels).sum(1))


def test_the_scales_before_a_layer_norm_meet_its_epsilon_alone(small, generator, without_epsilon):
    U, images = _trained(small)
    before = image_logits(images, U)
    for _ in range(3):
        element = CompleteElement.sample(small.spec, generator, condition=100.0)
        assert relative_error(image_logits(images, element.act(U)), before) < TOLERANCE


def test_with_the_epsilon_scales_change_little(small, generator):
    U, images = _trained(small)
    before = image_logits(images, U)
    changes = [
        relative_error(image_logits(images, CompleteElement.sample(small.spec, generator).act(U)), before)
        for _ in range(3)
    ]
    assert 1e-9 < max(changes) < 0.05


@pytest.mark.parametrize("field", ["u_Q", "u_K", "u_V", "u_A", "s_O", "s_B", "s_b"])
def test_what_is_shifted_differently_along_a_coordinate_is_another_network(generator, field):
    """Each shift is a symmetry only as it is constant along its coordinate: a part of it changes the function."""
    U = random_transformer(SPEC, 2, generator)
    images = torch.randn(1, 5, 2, 4, 6, generator=generator, dtype=torch.float64)
    one = CompleteElement.identity(SPEC)
    element = CompleteElement.sample(SPEC, generator)
    shifts = {name: getattr(one.blocks[0].shifts, name) for name in vars(one.blocks[0].shifts)}
    shifts[field] = getattr(element.blocks[0].shifts, field)
    moved = _with_shifts(one, shifts).act(U)
    assert relative_error(image_logits(images, moved), image_logits(images, U)) < TOLERANCE
    half = moved.map(lambda tensor: tensor)
    name = {"u_Q": "W_Q", "u_K": "W_K", "u_V": "W_V", "u_A": "W_A", "s_O": "W_O", "s_B": "W_B", "s_b": "b_B"}[field]
    coordinate = -2 if field.startswith("u") else -1
    tensor = getattr(half.blocks[0], name).clone()
    tensor.narrow(coordinate, 0, 3).copy_(getattr(U.blocks[0], name).narrow(coordinate, 0, 3))
    broken = _with_tensor(half, name, tensor)
    assert relative_error(image_logits(images, broken), image_logits(images, U)) > 1e-4


def _with_shifts(element: CompleteElement, shifts: dict) -> CompleteElement:
    first = replace(element.blocks[0], shifts=type(element.blocks[0].shifts)(**shifts))
    return replace(element, blocks=(first, *element.blocks[1:]))


def _with_tensor(weights, name: str, tensor: torch.Tensor):
    return replace(weights, blocks=(replace(weights.blocks[0], **{name: tensor}), *weights.blocks[1:]))
