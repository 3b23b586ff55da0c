"""The predictor: every mode, the network by hand, exact invariance before and after training, one seed one model."""

import itertools
from dataclasses import replace

import network_by_hand
import pytest
import torch
from symmetry import Acting, random_transformer

from nfn_transformer.errors import SpecError, UserError
from nfn_transformer.groups.equivariance_error import equivariance_error, relative_error
from nfn_transformer.groups.permutation import PermutationElement
from nfn_transformer.groups.published import GroupElement
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.models.registry import ROLES, entries
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

SPEC = TransformerSpec(
    blocks=(BlockSpec(2, 6, 3, 2, 5), BlockSpec(3, 6, 2, 4, 7), BlockSpec(1, 6, 2, 2, 4)),
    classifier=FeedForwardSpec((6, 5, 4)),
    embedding=EmbeddingSpec(1, 6, (2, 2), 9),
)
CHOICES = [["no", *(name for name, e in entries(role).items() if e.build)] for role in ROLES]
MODES = [modes for modes in itertools.product(*CHOICES) if set(modes) != {"no"}]


@pytest.mark.parametrize("modes", MODES)
def test_every_combination_of_modes_learns_from_every_parameter(modes, generator):
    options = {"transformers_nfn_channels": (8, 6), "classifier_nfn_channels": (8, 8)}
    config = ModelConfig(*modes, options=options)
    model = build_predictor(SPEC, config, seed=0).double()
    weights = random_transformer(SPEC, 8, generator)
    predicted = model.predict(weights)
    assert predicted.shape == (8,)
    assert ((predicted > 0) & (predicted < 1)).all()
    predicted.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    learning = torch.cat([parameter.grad.flatten() != 0 for parameter in model.parameters()])
    assert learning.double().mean() > 0.5  # the others belong to ReLUs that no network of the batch passes


# The others have slow versions of their own beside the tests of their layers.
BY_HAND = [
    modes for modes in MODES if modes[0] not in ("complete", "graph", "probe") and modes[1] not in ("magep", "nft")
]


@pytest.mark.parametrize("modes", BY_HAND)
def test_the_network_is_the_one_of_the_design(modes, generator):
    """All parameters are moved from where they start, those of LayerNorms and pooling from 1 and 0."""
    channels = {"transformers_nfn_channels": (4, 3), "classifier_nfn_channels": (5, 4)}
    outputs = {"num_out_encoder": 5, "num_out_classify": 4, "num_out_embedding": 3}
    model = build_predictor(SPEC, ModelConfig(*modes, options=channels, **outputs), seed=2).double()
    weights = random_transformer(SPEC, 8, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        expected = network_by_hand.logit(model, weights)
        assert expected.std() > 1e-3
        assert relative_error(model(weights), expected) < 1e-9
        assert relative_error(model.predict(weights), 1 / (1 + (-expected).exp())) < 1e-9


@pytest.mark.parametrize("cls_mode", ["np", "hnp", "hnps", "magep", "nft"])
def test_classifiers_heads_respect_permutations(cls_mode, generator):
    """And np alone does not know which class is which."""
    model = build_predictor(SPEC, ModelConfig("no", cls_mode, "no"), seed=1).double()
    weights = random_transformer(SPEC, 4, generator)
    hidden, whole = (PermutationElement.sample(SPEC.classifier, generator, wide) for wide in (False, True))

    def on_classifier(g):
        return Acting(lambda U: replace(U, classifier=g.act(U.classifier)))

    assert equivariance_error(model.predict, on_classifier(hidden), weights) < 1e-9
    assert (equivariance_error(model.predict, on_classifier(whole), weights) < 1e-9) == (cls_mode == "np")


@pytest.mark.parametrize("cls_mode", ["hnps", "magep", "mlp", "no"])
def test_predictions_are_invariant(cls_mode, generator):
    """The hnps and magep branches are invariant to the classifier's own group too."""
    model = build_predictor(SPEC, ModelConfig(cls_mode=cls_mode), seed=1).double()
    weights = random_transformer(SPEC, 4, generator)
    g = GroupElement.sample(SPEC, generator, 1e3, classifier=cls_mode in ("hnps", "magep"))
    assert equivariance_error(model.predict, g, weights) < 1e-9


@pytest.mark.parametrize("modes", [("mlp", "no", "no"), ("statnn", "no", "no"), ("no", "mlp", "no")])
def test_baselines_are_not_invariant(modes, generator):
    """The measure notices an encoder that only looks invariant."""
    model = build_predictor(SPEC, ModelConfig(*modes), seed=1).double()
    weights = random_transformer(SPEC, 4, generator)
    g = GroupElement.sample(SPEC, generator, 10.0, classifier=True)
    assert equivariance_error(model, g, weights) > 1e-4


def test_one_seed_gives_one_model_whatever_was_drawn_before():
    first = build_predictor(SPEC, ModelConfig(), seed=5)
    torch.rand(3)
    second, other = build_predictor(SPEC, ModelConfig(), seed=5), build_predictor(SPEC, ModelConfig(), seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.encoder.equivariant[0][0].Phi_Q, other.encoder.equivariant[0][0].Phi_Q)


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    build_predictor(SPEC, ModelConfig(), seed=5)
    assert torch.equal(torch.rand(2), expected)


def test_the_constant_positional_encoding_is_no_feature(generator):
    model = build_predictor(SPEC, ModelConfig("no", "no", "mlp"), seed=0).double()
    weights = random_transformer(SPEC, 2, generator)
    moved = replace(weights, embedding=replace(weights.embedding, pos_embedding=weights.embedding.pos_embedding + 1))
    assert torch.equal(model(weights), model(moved))


def test_wrong_modes_and_weights_are_refused(generator):
    with pytest.raises(UserError, match="leaves nothing to read"):
        ModelConfig("no", "no", "no").check(SPEC, "mnist")
    with pytest.raises(UserError, match="--emb_mode mlp: the checkpoints of zoo 'ag_news' have no embedding"):
        ModelConfig().check(replace(SPEC, embedding=None), "ag_news")
    with pytest.raises(UserError, match="attention --graph_dim 10: not a multiple of its 4 attention heads"):
        ModelConfig("graph", options={"graph_conv": "attention", "graph_dim": 10}).check(SPEC, "mnist")
    model = build_predictor(SPEC, ModelConfig(), seed=0).double()
    with pytest.raises(SpecError, match="weights have 2 blocks, expected 3"):
        model(random_transformer(replace(SPEC, blocks=SPEC.blocks[:2]), 2, generator))
