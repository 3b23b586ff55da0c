"""Features of tree models: known values, what the complete group leaves, and what cannot be read."""

from dataclasses import replace

import pytest
import torch
from random_networks import SPECS, random_networks
from symmetry import random_transformer

from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.features.network_invariants import COORDINATES
from nfn_transformer.groups.complete import CompleteElement
from nfn_transformer.groups.network import NetworkElement
from nfn_transformer.trees import features as tree_features
from nfn_transformer.trees.config import TREE_MODELS, TreeConfig
from nfn_transformer.trees.features import TREE_FEATURES, check_readable, features_of_checkpoints, features_of_networks
from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec, TransformerSpec
from nfn_transformer.zoo.metadata import ABSENT, HYPERPARAMETERS

OF_WEIGHTS = ("raw", "statistics", "invariants")
ALL = torch.arange(60)


def test_raw_features_are_all_trained_numbers(small):
    found = features_of_checkpoints("raw", small, ALL)
    positional = small.shapes["embedding.pos_embedding"]
    assert found.shape == (60, small.rows.shape[1] - torch.Size(positional).numel())
    kept = torch.cat([small.rows[7], -small.weights(ALL[7:8]).embedding.pos_embedding.flatten()])
    assert found[7].double().sum().item() == pytest.approx(kept.double().sum().item(), abs=1e-4)


def test_statistics_are_those_of_every_tensor(small):
    found = features_of_checkpoints("statistics", small, ALL).unflatten(1, (-1, 7))
    tensors = len(small.shapes) - 1  # the positional encoding is constant
    assert found.shape == (60, tensors, 7)
    queries = small.rows.split([torch.Size(shape).numel() for shape in small.shapes.values()], dim=1)
    of_queries = queries[list(small.shapes).index("encoder.0.attention.queries.weight")]
    assert torch.allclose(found[:, 0, 0], of_queries.mean(1), atol=1e-7)
    assert torch.allclose(found[:, 0, 4], of_queries.sort(1).values[:, 127:129].mean(1))  # the median of 256
    assert torch.equal(found[:, 0, 6], of_queries.amax(1))


def test_hyperparameters_are_those_of_the_metadata(small):
    index = torch.tensor([5, 2])
    assert torch.equal(features_of_checkpoints("hyperparameters", small, index), small.hyperparameters[index])


def test_the_complete_group_changes_only_what_is_no_invariant(small, generator):
    U = small.weights(torch.arange(10)).to(torch.float64)
    copies = CompleteElement.sample(small.spec, generator, condition=10.0).act(U)
    for features in OF_WEIGHTS:
        before, after = (features_of_networks(features, weights) for weights in (U, copies))
        moved = (after - before).abs().max().item()
        assert (moved < 1e-9) if features == "invariants" else (moved > 0.1), features


@pytest.mark.parametrize("features", OF_WEIGHTS)
def test_reading_in_parts_and_in_any_order_changes_nothing(features, small, monkeypatch):
    index = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    whole = features_of_checkpoints(features, small, index)
    monkeypatch.setattr(tree_features, "_BATCH", 7)
    assert torch.allclose(features_of_checkpoints(features, small, index), whole, atol=1e-5)
    assert torch.allclose(features_of_networks(features, small.weights(index)), whole, atol=1e-5)


def test_no_checkpoints_have_no_features(small):
    with pytest.raises(ValueError, match="no checkpoints are selected"):
        features_of_checkpoints("raw", small, ALL[:0])


def test_weights_do_not_tell_hyperparameters(small):
    with pytest.raises(RunError, match="reads hyperparameters, which weights do not tell; have it score"):
        features_of_networks("hyperparameters", small.weights(ALL[:1]))


def test_what_a_zoo_does_not_have_is_said_before_anything_is_read(small, generator):
    silent = replace(small, hyperparameters=torch.full((60, len(HYPERPARAMETERS)), ABSENT))
    with pytest.raises(ZooError, match=r"metadata tells none of lr, w_init_std, .*, optimizer"):
        check_readable("hyperparameters", silent, "mine")
    deep = TransformerSpec((BlockSpec(2, 4, 2, 2, 3),), FeedForwardSpec((4, 3, 3, 2)), None)
    with pytest.raises(UserError, match=r"--features invariants: zoo 'mine' has .* a classifier of 3 layers, expected"):
        check_readable("invariants", replace(small, spec=deep), "mine")
    with pytest.raises(UserError, match=r"--features products: the networks of zoo 'digits' are of zoo_transformer"):
        check_readable("products", small, "digits")
    for features in TREE_FEATURES.keys() - {"products"}:
        check_readable(features, small, "digits")
    for features in ("raw", "statistics"):
        check_readable(features, replace(silent, spec=deep), "mine")
    weights = random_transformer(deep, 2, generator)
    assert features_of_networks("statistics", weights).shape == (2, 7 * (8 + 6))


def test_names_and_bad_names():
    assert TREE_MODELS["gbtree"].config().name == "xgboost-gbtree"
    assert TREE_MODELS["gbdt"].config("statistics").name == "lightgbm-gbdt-statistics"
    for wrong in (("catboost", {}), ("xgboost", {}, "everything")):
        with pytest.raises(ValueError, match="expected one of"):
            TreeConfig(*wrong)


def test_features_beyond_single_precision_are_named(small):
    rows = small.rows.clone()
    rows[3] *= 1e30
    huge = replace(small, rows=rows)
    with pytest.raises(ZooError, match=rf"{small.names[3]}: its statistics features are beyond float32"):
        features_of_checkpoints("statistics", huge, torch.tensor([5, 3]))
    assert torch.isfinite(features_of_checkpoints("invariants", huge, torch.tensor([5, 3]))).all()


def test_invariants_of_feed_forward_networks_are_invariant(generator):
    U = random_networks(SPECS["siren"], 3, generator)
    features = features_of_networks("invariants", U)
    moved = features_of_networks("invariants", NetworkElement.sample(SPECS["siren"], generator).act(U))
    assert features.shape[1] > COORDINATES[2] ** 2
    assert (moved - features).abs().max() < 1e-9
