"""The baseline of the benchmarks computes what the package computes, from the same parameters, one to one."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_layers import EQUIVARIANT, INVARIANT, TermByTermEquivariant, TermByTermInvariant, terms_of
from published_way import (
    PublishedPredictor,
    collated_weights,
    published_loader,
    published_optimizer,
    published_training_step,
)
from symmetry import random_block, random_transformer
from torch.nn.functional import binary_cross_entropy_with_logits

from nfn_transformer import (
    CLASSIFIER,
    EMBEDDING,
    BlockSpec,
    EmbeddingSpec,
    EquivariantBlockLayer,
    FeedForwardSpec,
    InvariantBlockLayer,
    ModelConfig,
    TransformerSpec,
    build_predictor,
    state_dict_from_weights,
)
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models.registry import entries

TOLERANCE = 1e-9
PAIRS = [(EquivariantBlockLayer, TermByTermEquivariant), (InvariantBlockLayer, TermByTermInvariant)]

sizes = st.integers(1, 5)
block_specs = st.builds(BlockSpec, sizes, sizes, sizes, sizes, sizes)
channels = st.integers(1, 3)
seeds = st.integers(0, 2**32)


@st.composite
def transformer_specs(draw):
    """Networks of one to three blocks of any sizes, of which only D is the same in all."""
    width = draw(sizes)
    blocks = tuple(replace(draw(block_specs), width=width) for _ in range(draw(st.integers(1, 3))))
    return TransformerSpec(blocks, FeedForwardSpec((width, 4, 3)), EmbeddingSpec(1, width, (2, 2), 3))


def layer(kind, spec, d, e, seed):
    return kind(spec, d, e, "kaiming_normal", torch.Generator().manual_seed(seed)).double()


def with_gradients_as_parameters(model):
    """A copy whose parameters are the model's gradients: what is made from it has them in its own places."""
    copy = deepcopy(model)
    for parameter, trained in zip(copy.parameters(), model.parameters(), strict=True):
        parameter.data = trained.grad.clone()
    return copy


def assert_same_gradients(published, ours):
    """Fail unless every parameter's gradient is that of the same number of the package's model."""
    expected = dict(type(published)(with_gradients_as_parameters(ours)).named_parameters())
    for name, parameter in published.named_parameters():
        assert relative_error(parameter.grad, expected.pop(name)) < TOLERANCE, name
    assert not expected


@pytest.mark.parametrize(("kind", "published_kind"), PAIRS)
@settings(max_examples=20, deadline=None)
@given(spec=block_specs, d=channels, e=channels, seed=seeds)
def test_layers_and_their_gradients_equal_ours(kind, published_kind, spec, d, e, seed):
    U = random_block(spec, 2, d, torch.Generator().manual_seed(seed))
    ours = layer(kind, spec, d, e, seed)
    published = published_kind(ours)
    expected, found = ours(U), published(U)
    assert relative_error(found, expected) < TOLERANCE
    for out in (expected, found):
        tensors = [out] if isinstance(out, torch.Tensor) else out.tensors()
        sum(tensor.square().sum() for tensor in tensors).backward()
    assert_same_gradients(published, ours)


@pytest.mark.parametrize(("kind", "published_kind"), PAIRS)
@settings(max_examples=20, deadline=None)
@given(spec=block_specs, d=channels, e=channels, seed=seeds)
def test_parameters_go_to_the_published_layer_and_back_bit_for_bit(kind, published_kind, spec, d, e, seed):
    ours, zeros = layer(kind, spec, d, e, seed), layer(kind, spec, d, e, 0)
    with torch.no_grad():
        for parameter in zeros.parameters():
            parameter.zero_()
    published = published_kind(zeros)
    published.load_terms(ours)
    published.store_terms(zeros)
    assert all(torch.equal(a, b) for a, b in zip(zeros.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "published_kind"), PAIRS)
@settings(max_examples=20, deadline=None)
@given(spec=block_specs, d=channels, e=channels)
def test_every_number_of_ours_is_in_one_term(kind, published_kind, spec, d, e):
    """The numbers 0, 1, ... as our parameters: the terms hold each of them once."""
    ours = layer(kind, spec, d, e, 0)
    start = 0
    for parameter in ours.parameters():
        parameter.data = torch.arange(start, start + parameter.numel(), dtype=torch.float64).view_as(parameter)
        start += parameter.numel()
    numbers = torch.cat([parameter.detach().flatten() for parameter in published_kind(ours).parameters()])
    assert torch.equal(numbers.sort().values, torch.arange(start, dtype=torch.float64))


@pytest.mark.parametrize(("kind", "formulas"), [(EquivariantBlockLayer, EQUIVARIANT), (InvariantBlockLayer, INVARIANT)])
def test_every_term_has_one_formula(kind, formulas):
    names = [term.name for output in formulas.values() for term in output.terms]
    assert sorted(names) == sorted(terms_of(layer(kind, BlockSpec(2, 3, 2, 2, 4), 1, 2, 0)))


@settings(max_examples=20, deadline=None)
@given(
    spec=transformer_specs(),
    config=st.builds(
        ModelConfig,
        st.just("inv"),
        st.sampled_from(["no", *entries(CLASSIFIER)]),
        st.sampled_from(["no", *entries(EMBEDDING)]),
        options=st.fixed_dictionaries({"transformers_nfn_channels": st.sampled_from([(3,), (4, 3), (3, 5, 4)])}),
    ),
    seed=seeds,
)
def test_the_predictor_and_its_gradients_equal_ours(spec, config, seed):
    ours = build_predictor(spec, config, seed).double()
    published = PublishedPredictor(ours)
    weights = random_transformer(spec, 3, torch.Generator().manual_seed(seed))
    assert relative_error(published(weights), ours(weights)) < TOLERANCE
    for model in (ours, published):
        model(weights).square().sum().backward()
    assert_same_gradients(published, ours)


def test_an_epoch_visits_every_network_once_with_its_label(small, generator):
    index = torch.arange(len(small))[::2]
    loader = published_loader(small, index, batch_size=7, workers=0, generator=generator)
    visited = []
    for samples, labels in loader:
        state = state_dict_from_weights(collated_weights(samples))
        rows = torch.cat([state[key].flatten(1) for key in small.shapes], dim=1)
        places = [torch.nonzero((small.rows == row).all(1)).item() for row in rows]
        assert torch.equal(small.labels[places], labels)
        visited += places
    assert visited != index.tolist()
    assert sorted(visited) == index.tolist()


def test_networks_without_embedding_are_collated_too(small, generator):
    shapes = {key: shape for key, shape in small.shapes.items() if not key.startswith("embedding")}
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    text = replace(small, spec=replace(small.spec, embedding=None), shapes=shapes, rows=small.rows[:, -numbers:])
    ((samples, _),) = published_loader(text, torch.arange(4), batch_size=4, workers=0, generator=generator)
    weights = collated_weights(samples)
    weights.check(text.spec)
    assert weights.batch == 4


def test_a_training_step_is_adam_on_the_loss_of_the_batch(small, generator):
    zoo = replace(small, rows=small.rows.double(), labels=small.labels.double())
    ours = build_predictor(zoo.spec, ModelConfig(), seed=0).double()
    published = PublishedPredictor(ours)
    optimizer, expected_optimizer = published_optimizer(published), torch.optim.Adam(ours.parameters())
    loader = published_loader(zoo, torch.arange(len(zoo)), batch_size=20, workers=0, generator=generator)
    for batch in loader:
        found = published_training_step(published, optimizer, batch)
        loss = binary_cross_entropy_with_logits(ours(collated_weights(batch[0])), batch[1])
        assert found == pytest.approx(loss.item(), rel=1e-6)
        expected_optimizer.zero_grad()
        loss.backward()
        expected_optimizer.step()
    for a, b in zip(published.parameters(), PublishedPredictor(ours).parameters(), strict=True):
        assert relative_error(a, b) < 1e-6
