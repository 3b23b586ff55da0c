"""Learned probes: the whole group of every family moves no prediction, and training moves the probes."""

from dataclasses import replace

import pytest
import torch
from random_networks import SPECS, random_networks
from standard_networks import STANDARD_SPECS, random_standard

from nfn_transformer import CompleteElement, ModelConfig, NetworkElement, Predictor, StandardElement, build_predictor
from nfn_transformer.errors import UserError
from nfn_transformer.features import answers
from nfn_transformer.features.responses import as_inputs, example_inputs
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models import probe_encoder
from nfn_transformer.weights.feed_forward_pass import network_outputs
from nfn_transformer.weights.spec import ACTIVATIONS

TOLERANCE = 1e-9


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch):
    """Four pictures of strokes suffice, and take no time; no other test keeps them."""
    answers.probe_inputs.cache_clear()
    answers.stroke_pictures.cache_clear()
    monkeypatch.setattr(answers, "STROKE_PICTURES", 4)
    yield
    answers.probe_inputs.cache_clear()
    answers.stroke_pictures.cache_clear()


PUBLISHED = {"probe_generator": "linear", "probe_readout": "concat"}


def predictor(U, **flags) -> Predictor:
    """A predictor in float64 with scales of U."""
    config = ModelConfig.from_flags({"enc_mode": "probe", "probes": 6, **flags}).without_parts()
    config.check(U.spec, "test")
    model = build_predictor(U.spec, config, seed=1).double().eval()
    model.fit_normalization([model.featurize(U)])
    return model


def assert_unmoved(model: Predictor, U, moved) -> None:
    with torch.no_grad():
        before = model.predict(U)
        assert before.std() > 1e-5
        assert relative_error(model.predict(moved), before) < TOLERANCE


@pytest.mark.parametrize("name", SPECS)
def test_symmetries_of_feed_forward_networks_change_no_prediction(name, generator):
    U = random_networks(SPECS[name], 6, generator)
    moved = NetworkElement.sample(SPECS[name], generator, largest_scale=1e3).act(U)
    for flags in ({}, PUBLISHED) if name in ("siren", "relu cnn") else ({},):
        assert_unmoved(predictor(U, **flags), U, moved)


@pytest.mark.parametrize("name", STANDARD_SPECS)
def test_symmetries_of_standard_transformers_change_no_prediction(name, generator):
    U = random_standard(STANDARD_SPECS[name], 3, generator)
    moved = StandardElement.sample(STANDARD_SPECS[name], generator).act(U)
    for flags in ({}, PUBLISHED) if name in ("vit", "gpt") else ({},):
        assert_unmoved(predictor(U, **flags), U, moved)


@pytest.mark.parametrize("flags", [{}, PUBLISHED], ids=["default", "published"])
@pytest.mark.parametrize("inputs", ["images", "texts"])
def test_symmetries_of_the_zoos_transformers_change_no_prediction(inputs, flags, small, generator):
    U = small.weights(torch.arange(8)).to(torch.float64)
    U = U if inputs == "images" else replace(U, embedding=None)
    assert_unmoved(predictor(U, **flags), U, CompleteElement.sample(U.spec, generator).act(U))


def test_soft_words_of_few_examples_are_held_at_once(generator, monkeypatch):
    spec = STANDARD_SPECS["bert"]
    U, held = random_standard(spec, 3, generator), []
    expected = predictor(U).encoder.probes.start

    def counted(examples, *others):
        held.append(len(examples))
        return as_inputs(examples, *others)

    monkeypatch.setattr(probe_encoder, "as_inputs", counted)
    monkeypatch.setattr(probe_encoder, "_NUMBERS_AT_ONCE", 2 * expected[0].numel() + 1)
    model = predictor(U)
    assert sum(held) > len(example_inputs(spec)) > 2 == max(held[1:-1])
    assert torch.equal(model.encoder.probes.start, expected)


def test_exchanged_classes_move_predictions(generator):
    U = random_networks(SPECS["relu cnn"], 6, generator)
    model, order = predictor(U), torch.tensor([1, 2, 0])
    *first, W = U.weights
    *biases, b = U.biases
    exchanged = replace(U, weights=(*first, W[:, order]), biases=(*biases, b[:, order]))
    with torch.no_grad():
        assert relative_error(model.predict(exchanged), model.predict(U)) > 1e-4


@pytest.mark.parametrize("flags", [{}, PUBLISHED], ids=["default", "published"])
@pytest.mark.parametrize("kind", ["relu cnn", "siren", "gpt", "zoo transformer"])
def test_training_moves_the_probes(kind, flags, small, generator):
    if kind == "zoo transformer":
        U = small.weights(torch.arange(8)).to(torch.float64)
    elif kind in SPECS:
        U = random_networks(SPECS[kind], 8, generator)
    else:
        U = random_standard(STANDARD_SPECS[kind], 8, generator)
    model = predictor(U, **flags)
    features, wanted = model.featurize(U), torch.linspace(-1, 1, 8, dtype=torch.float64)
    first = model.encoder.probes().detach()
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(40):  # the loss of sines goes up and down at first, on each processor otherwise
        loss = (model.from_features(features) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    moved = (model.encoder.probes() - first).flatten(1).abs().amax(1)
    assert moved.min() > 1e-3


def test_words_are_kept_as_numbers_until_they_are_asked():
    spec = replace(STANDARD_SPECS["bert"], vocabulary=30_000)
    words = example_inputs(spec)
    assert (words.ndim, words.is_floating_point()) == (2, False)
    logits = as_inputs(words[:2], spec, like=torch.zeros((), dtype=torch.float64))
    shares = logits.softmax(-1).gather(-1, words[:2, :, None])
    assert logits.shape == (2, words.shape[1], 30_000)
    assert torch.allclose(shares, torch.tensor(0.9526, dtype=torch.float64), atol=1e-3)


def test_members_of_an_ensemble_start_alike_and_change_on_their_own(small):
    U = small.weights(torch.arange(12)).to(torch.float64)
    first, second = (member.encoder for member in predictor(U, ensemble=2).members)
    alone = predictor(U).encoder
    assert torch.equal(first.probes.start, second.probes.start)
    assert not torch.equal(first.probes.start, example_inputs(U.spec)[:6])
    assert not torch.equal(first.probes.change, second.probes.change)
    assert torch.equal(alone.readout.scale.mean, second.readout.scale.mean)


def test_networks_of_other_activations_are_read_beside_each_other(generator):
    relu = SPECS["relu cnn"]
    zoos = [random_networks(replace(relu, activation=name), 3, generator) for name in ACTIVATIONS if name != "sine"]
    model = predictor(zoos[0])
    asked = [model.featurize(U) for U in zoos]
    together = asked[0].map(lambda *tensors: torch.cat(tensors), *asked[1:])
    with torch.no_grad():
        of_each = torch.cat([network_outputs(model.encoder.probes(), U) for U in zoos])
        assert relative_error(model.encoder.respond(together.encoder).outputs, of_each) < TOLERANCE
    assert not model.supports(replace(relu, strides=(1, 1, 1)))
    assert not model.supports(replace(relu, activation="sine"))


def test_a_network_that_overflows_spoils_no_probe(generator):
    U = random_networks(SPECS["relu cnn"], 6, generator).to(torch.float32)
    U = U.map(lambda tensor: torch.cat([tensor[:1] * 1e30, tensor[1:]]))
    model = predictor(U.to(torch.float64)).float()
    outputs = model.from_features(model.featurize(U))
    outputs.sum().backward()
    assert outputs.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_pooled_readouts_need_classes(generator):
    with pytest.raises(UserError, match=r"^--probe_readout pooled: .* one output, expected at least 2 classes"):
        predictor(random_networks(SPECS["siren"], 2, generator), probe_readout="pooled")
    headless = next(spec for spec in STANDARD_SPECS.values() if not spec.head_sizes)
    with pytest.raises(UserError, match=r"^--probe_readout pooled: .* no head, expected at least 2 classes"):
        predictor(random_standard(headless, 2, generator), probe_readout="pooled")
