"""Ensembles, dropout and standardised inputs: exactly invariant still, averaged, and what they ask for."""

from dataclasses import replace

import pytest
import torch
from symmetry import random_transformer

from nfn_transformer.errors import UserError
from nfn_transformer.groups.complete import CompleteElement
from nfn_transformer.groups.equivariance_error import equivariance_error, relative_error
from nfn_transformer.groups.published import GroupElement
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import Ensemble, SinglePredictor, build_predictor
from nfn_transformer.weights.containers import BlockWeights, TransformerWeights
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

SPEC = TransformerSpec(
    blocks=(BlockSpec(2, 6, 3, 2, 5), BlockSpec(3, 6, 2, 4, 7)),
    classifier=FeedForwardSpec((6, 5, 4)),
    embedding=EmbeddingSpec(1, 6, (2, 2), 9),
)
OPTIONS = {"dropout": 0.3, "standardize": True, "ensemble": 3}


def learned(config: ModelConfig, weights: TransformerWeights) -> Ensemble | SinglePredictor:
    """A predictor in double precision that has taken its scales from networks."""
    model = build_predictor(SPEC, config, seed=1).double().eval()
    model.fit_normalization([model.featurize(weights)])
    return model


def larger(weights: TransformerWeights) -> TransformerWeights:
    """The weights with each kind of tensor enlarged by a number of its own."""
    block = BlockWeights(1.5, 2.0, 3.0, 0.7, 5.0, 0.2, 4.0, 9.0)
    names = ("W_Q", "W_K", "W_V", "W_O", "W_A", "b_A", "W_B", "b_B")
    blocks = [
        replace(own, **{name: getattr(own, name) * getattr(block, name) for name in names}) for own in weights.blocks
    ]
    factors = iter((2.0, 3.0, 0.5, 7.0))
    return replace(
        weights, blocks=tuple(blocks), classifier=weights.classifier.map(lambda tensor: tensor * next(factors))
    )


@pytest.mark.parametrize("cls_mode", ["hnps", "mlp"])
def test_predictions_are_invariant_with_all_options(cls_mode, generator):
    weights = random_transformer(SPEC, 4, generator)
    model = learned(ModelConfig(cls_mode=cls_mode, **OPTIONS), weights)
    g = GroupElement.sample(SPEC, generator, 1e3, classifier=cls_mode == "hnps")
    assert equivariance_error(model.predict, g, weights) < 1e-9
    assert model.predict(weights).std() > 1e-4


def test_the_complete_group_changes_nothing_with_all_options(generator):
    weights = random_transformer(SPEC, 4, generator)
    model = learned(ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no", **OPTIONS), weights)
    g = CompleteElement.sample(SPEC, generator, condition=100.0)
    assert equivariance_error(model.predict, g, weights) < 1e-9


@pytest.mark.parametrize("cls_mode", ["hnps", "mlp", "statnn"])
@pytest.mark.parametrize("enc_mode", ["inv", "mlp", "statnn"])
def test_standardised_inputs_do_not_know_the_units_of_weights(enc_mode, cls_mode, generator):
    weights = random_transformer(SPEC, 6, generator)
    for options, same in (({"standardize": True}, True), ({}, False)):
        config = ModelConfig(enc_mode=enc_mode, cls_mode=cls_mode, **options)
        models = [learned(config, seen) for seen in (weights, larger(weights))]
        found, expected = models[0](weights), models[1](larger(weights))
        assert (relative_error(found, expected) < 1e-6) == same


def test_log_magnitudes_bring_far_networks_near(generator):
    """One network a thousand times as large: without the logarithm all others look alike."""
    weights = random_transformer(SPEC, 30, generator)
    factor = torch.ones(30, dtype=torch.float64)
    factor[0] = 1e3
    weights = weights.map(lambda tensor: tensor * factor.view(-1, *[1] * (tensor.ndim - 1)))
    spread = []
    for logarithmic in (False, True):
        config = ModelConfig("mlp", "no", "no", standardize=True, log_magnitudes=logarithmic)
        model = learned(config, weights)
        branch = model.encoder
        spread.append(branch.scale(branch.featurize(weights))[1:].std().item())
    assert spread[1] > 10 * spread[0]


def test_an_ensemble_is_the_mean_of_its_members(generator):
    weights = random_transformer(SPEC, 5, generator)
    model = learned(ModelConfig(ensemble=3), weights)
    logits = torch.stack([member(weights) for member in model.members])
    assert torch.equal(model(weights), logits.mean(0))
    assert logits.std(0).min() > 1e-6
    model.train()
    assert torch.equal(model.from_features(model.featurize(weights)), logits)


def test_the_first_member_is_the_predictor_alone():
    several, alone = (build_predictor(SPEC, ModelConfig(ensemble=count), seed=4) for count in (3, 1))
    assert isinstance(alone, SinglePredictor)
    for name, tensor in several.members[0].state_dict().items():
        assert torch.equal(tensor, alone.state_dict()[name]), name


def test_dropout_depends_on_the_networks_and_the_epoch_alone(generator):
    weights = random_transformer(SPEC, 8, generator)
    for config in (ModelConfig("mlp", "no", "no", dropout=0.4), ModelConfig("complete", "no", "no", dropout=0.4)):
        model = learned(config, weights).train()
        features = replace(model.featurize(weights), network=torch.arange(10, 18))
        model.begin_epoch(5)
        first = model.from_features(features)
        assert torch.equal(model.from_features(features), first)
        assert relative_error(model.from_features(features[[3, 1]]), first[[3, 1]]) < 1e-12
        model.begin_epoch(6)
        assert relative_error(model.from_features(features), first) > 1e-3
        model.begin_epoch(5)
        others = replace(features, network=torch.arange(20, 28))
        assert relative_error(model.from_features(others), first) > 1e-3
        model.eval()
        assert torch.equal(model.from_features(features), model(weights))


def test_bad_options_are_refused():
    for wrong in ({"dropout": 1.0}, {"dropout": -0.1}, {"ensemble": 0}, {"log_magnitudes": True}):
        with pytest.raises(ValueError, match=r"expected |--log_magnitudes True: requires"):
            ModelConfig(**wrong)
    config = ModelConfig(enc_mode="inv", cls_mode="hnps", emb_mode="no", standardize=True, log_magnitudes=True)
    with pytest.raises(
        UserError, match="--log_magnitudes True: not read by --enc_mode inv --cls_mode hnps --emb_mode no; requires "
    ):
        config.check(SPEC, "mnist")
    with pytest.raises(UserError, match=r"--cls_mode nft --classifier_nfn_channels 10,5: its blocks are of one width"):
        ModelConfig(cls_mode="nft", options={"classifier_nfn_channels": (10, 5)}).check(SPEC, "mnist")
    with pytest.raises(
        UserError, match=r"--dropout 0\.1: not read by --enc_mode no --cls_mode no --emb_mode mlp; requires "
    ):
        ModelConfig("no", "no", "mlp", dropout=0.1).check(SPEC, "mnist")
