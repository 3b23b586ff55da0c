"""The tree models as libraries: published settings, the best round as it was then, damage, and devices of memory."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import torch
import xgboost

from nfn_transformer.trees import lightgbm_trees, xgboost_trees
from nfn_transformer.trees.config import TREE_MODELS, BoostingConfig, TreeConfig
from nfn_transformer.trees.fitting import Settings, Sides
from nfn_transformer.trees.libraries import tree_library

CONFIGS = {model: TREE_MODELS[model].config() for model in ("gbtree", "dart", "gbdt", "rf")}
MODELS = pytest.mark.parametrize("model", CONFIGS)
BEST, LAST = 7, 25

# What decides only how much memory is used: all of a model's parameters beyond the published ones.
MEMORY = {"grow_policy", "max_cached_hist_node", "histogram_pool_size"}


def published(model: str) -> TreeConfig:
    """A model's settings without those of memory."""
    config = CONFIGS[model]
    return replace(config, parameters={name: value for name, value in config.parameters.items() if name not in MEMORY})


class Observer:
    """Calls one round the best and another the last, and keeps what it was shown."""

    def __init__(self, best: int, last: int):
        self.best, self.last = best, last
        self.losses, self.shown = [], []

    def finish_round(self, train_loss, predictions):
        self.losses.append(train_loss)
        self.shown.append(predictions.copy())
        return len(self.shown) == self.best, len(self.shown) == self.last


def data(rows: int = 600, columns: int = 20, signal: float = 0.1, noise: float = 0.05, seed: int = 0):
    """Inputs [rows, columns] and labels around 0.5 that depend on the first columns, smoothly and with steps."""
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(rows, columns)).astype(np.float32)
    steps = np.sign(inputs[:, 0]) + 0.5 * inputs[:, 1 % columns] * (inputs[:, 2 % columns] > 0)
    return inputs, (0.5 + signal * steps + noise * draw.normal(size=rows)).astype(np.float32)


def sides(inputs, labels) -> Sides:
    """Two thirds to train on."""
    cut = 2 * len(inputs) // 3
    return Sides(inputs[:cut], labels[:cut], inputs[cut:], labels[cut:])


def fit(config, whole, observer=None, rounds=LAST, seed=3):
    """The fitted model, and its predictions of the validation side."""
    parts = sides(*whole)
    validation = parts.validation
    observer = observer or Observer(rounds, rounds)
    model = tree_library(config.library).fit(Settings(config, BoostingConfig(rounds), seed, 1, "cpu"), parts, observer)
    assert not {"train", "validation"} & vars(parts).keys()
    return model, model.predict(validation)


def test_the_settings_are_the_published_ones():
    shared = {
        "objective": "reg:squarederror", "learning_rate": 0.1, "max_depth": 10, "min_child_weight": 50,
        "subsample": 0.8, "colsample_bytree": 0.8, "lambda": 0.01, "alpha": 0.02, "tree_method": "hist",
    }  # fmt: skip
    assert published("gbtree") == TreeConfig("xgboost", {"booster": "gbtree", **shared})
    assert published("dart") == TreeConfig("xgboost", {"booster": "dart", **shared, "rate_drop": 0.1})
    shared = {
        "objective": "regression", "metric": "rmse", "learning_rate": 0.1, "num_leaves": 256, "max_depth": 10,
        "min_data_in_leaf": 50, "bagging_fraction": 0.8, "feature_fraction": 0.8, "lambda_l1": 0.1, "lambda_l2": 0.2,
        "min_gain_to_split": 0.01, "max_bin": 255,
    }  # fmt: skip
    assert published("gbdt") == TreeConfig("lightgbm", {"boosting": "gbdt", "bagging_freq": 0, **shared})
    assert published("rf") == TreeConfig("lightgbm", {"boosting": "rf", "bagging_freq": 1, **shared})
    assert TREE_MODELS["gbtree"].boosting == TREE_MODELS["dart"].boosting == BoostingConfig(50, None)
    assert TREE_MODELS["gbdt"].boosting == TREE_MODELS["rf"].boosting == BoostingConfig(1000, 50)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rounds": 5, "early_stopping": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="below 1"):
        BoostingConfig(**wrong)


@MODELS
def test_the_model_is_that_of_the_best_round(model):
    whole, observer = data(), Observer(BEST, LAST)
    fitted, predicted = fit(CONFIGS[model], whole, observer, rounds=2 * LAST)
    assert len(observer.shown) == LAST
    assert fitted.trees == BEST
    assert predicted == pytest.approx(observer.shown[BEST - 1], abs=1e-6)
    for other in (BEST - 2, BEST, LAST - 1):
        assert np.abs(predicted - observer.shown[other]).max() > 1e-4


def test_later_rounds_of_dart_change_earlier_trees():
    """Why the best round is copied: cutting the last model down to it would give another one."""
    whole, observer = data(), Observer(LAST, LAST)
    fitted, _ = fit(CONFIGS["dart"], whole, observer)
    booster = xgboost.Booster(model_file=bytearray(fitted.content))
    cut = booster.predict(xgboost.DMatrix(sides(*whole).validation), iteration_range=(0, BEST))
    assert np.abs(cut - observer.shown[BEST - 1]).max() > 1e-3


@MODELS
def test_losses_are_those_of_the_training_side_and_rounds_are_as_many_as_asked_for(model):
    whole, observer = data(), Observer(5, 99)
    fit(CONFIGS[model], whole, observer, rounds=5)
    assert len(observer.losses) == 5
    parts, again = sides(*whole), Observer(5, 5)
    swapped = Sides(parts.train, parts.train_labels, parts.train, parts.train_labels)
    tree_library(CONFIGS[model].library).fit(Settings(CONFIGS[model], BoostingConfig(5), 3, 1, "cpu"), swapped, again)
    expected = [np.sqrt(np.mean((shown - parts.train_labels) ** 2)) for shown in again.shown]
    assert observer.losses == pytest.approx(expected, rel=1e-5)
    assert observer.losses[-1] < 0.9 * parts.train_labels.std()


@MODELS
def test_the_seed_decides_every_bit(model):
    (first, predicted), (second, _), (other, overrides) = (fit(CONFIGS[model], data(), seed=s) for s in (3, 3, 4))
    assert first.content == second.content
    assert np.abs(predicted - overrides).max() > 1e-4
    assert first.content != other.content


@MODELS
def test_what_is_written_predicts_the_same(model):
    fitted, predicted = fit(CONFIGS[model], data())
    again = tree_library(CONFIGS[model].library).parse(fitted.content)
    assert np.array_equal(again.predict(sides(*data()).validation), predicted)
    assert (again.trees, again.content) == (fitted.trees, fitted.content)


@MODELS
def test_damaged_content_is_refused(model):
    """Some of these end the whole process in the libraries themselves."""
    content, parse = fit(CONFIGS[model], data())[0].content, tree_library(CONFIGS[model].library).parse
    damaged = [content[: len(content) * tenths // 10] for tenths in range(10)]
    damaged += [content[:-1], content[: content.rindex(b"\n", 0, -2)] if b"\n" in content else content[:-2]]
    damaged += [b"text", b"{}", b"[]", b"\xff\xfe", bytes(1000)]
    words = (b"leaf_value=", b"threshold=", b"Tree=") if b"Tree=" in content else (b"left_children", b"trees")
    damaged += [content.replace(word, b"lost") for word in words]
    for bad in damaged:
        with pytest.raises(ValueError, match=r"\w"):
            parse(bad)


def weak_data():
    """So little to learn that a tree without the one column that counts finds no split."""
    draw = np.random.default_rng(1)
    inputs = draw.normal(size=(300, 3)).astype(np.float32)
    return inputs, (0.5 + 0.02 * np.sign(inputs[:, 0]) + 0.002 * draw.normal(size=300)).astype(np.float32)


def test_boosting_without_a_tree_in_some_rounds_keeps_the_best_rounds_trees():
    observer = Observer(BEST, LAST)
    fitted, predicted = fit(CONFIGS["gbdt"], weak_data(), observer, seed=1)
    changed = [not np.array_equal(*pair) for pair in zip(observer.shown, observer.shown[1:], strict=False)]
    assert not all(changed[: BEST - 1]), "every round has a tree"
    assert any(changed[BEST - 1 :]), "no tree after the best round"
    assert fitted.trees == 1 + sum(changed[: BEST - 1])
    assert np.array_equal(predicted, observer.shown[BEST - 1])


def test_a_forests_tree_without_a_split_predicts_the_mean():
    observer = Observer(LAST, LAST)
    whole = weak_data()
    fitted, predicted = fit(CONFIGS["rf"], whole, observer, seed=1)
    booster = lightgbm.Booster(model_str=fitted.content.decode())
    leaves = [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]]
    assert leaves.count(1) > 3
    assert leaves.count(2) > 3
    assert predicted == pytest.approx(observer.shown[-1], abs=1e-9)
    inputs, labels = sides(*whole).validation, sides(*whole).train_labels
    single = [booster.predict(inputs, start_iteration=tree, num_iteration=1) for tree in range(LAST)]
    for count, predictions in zip(leaves, single, strict=True):
        if count == 1:
            assert predictions == pytest.approx(np.full(len(inputs), labels.mean()), abs=1e-6)
    for round_, shown in enumerate(observer.shown, start=1):
        assert shown == pytest.approx(np.mean(single[:round_], axis=0), abs=1e-9)


@MODELS
def test_too_few_networks_for_a_split_get_the_mean(model):
    inputs, labels = data(rows=30)
    _, predicted = fit(CONFIGS[model], (inputs, labels))
    assert predicted == pytest.approx(np.full(10, labels[:20].mean()), abs=0.02)
    assert len(set(predicted.tolist())) == 1


@pytest.mark.parametrize("model", ["gbdt", "rf"])
def test_columns_binned_part_by_part_change_nothing(model, monkeypatch):
    whole = data()
    one_piece, predicted = fit(CONFIGS[model], whole)
    monkeypatch.setattr(lightgbm_trees, "_COLUMNS", 7)
    parts, again = fit(CONFIGS[model], whole)
    assert np.array_equal(predicted, again)
    assert parts.content == one_piece.content
    assert len(lightgbm.Booster(model_str=parts.content.decode()).feature_name()) == 20


@pytest.mark.parametrize("model", ["gbtree", "dart"])
def test_settings_of_memory_change_nothing(model):
    whole = data(rows=3000)
    fitted, predicted = fit(CONFIGS[model], whole)
    assert CONFIGS[model] != published(model)
    assert len(fitted.content) > 500 * LAST, "trees too small for the settings to matter"
    assert np.array_equal(predicted, fit(published(model), whole)[1])


def plain_xgboost(whole, seed=3):
    """Return the results of XGBoost's own interface, with its own sketch of the data."""
    parts = sides(*whole)
    train = xgboost.QuantileDMatrix(parts.train, parts.train_labels)
    booster = xgboost.train({**published("gbtree").parameters, "seed": seed, "nthread": 1}, train, LAST)
    return booster.predict(xgboost.DMatrix(parts.validation))


def test_few_rows_are_sketched_by_xgboost_itself(monkeypatch):
    whole = data(rows=900)
    monkeypatch.setattr(xgboost_trees, "SKETCH_ROWS", 600)
    assert np.array_equal(fit(CONFIGS["gbtree"], whole)[1], plain_xgboost(whole))


def test_many_rows_are_sketched_by_their_order_statistics(monkeypatch):
    """Other cuts, as good: the validation RMSE moves by less than 2 %. The columns that count are the last ones."""
    inputs, labels = data(rows=6000)
    whole = inputs[:, ::-1].copy(), labels
    labels = sides(*whole).validation_labels
    monkeypatch.setattr(xgboost_trees, "SKETCH_ROWS", 1024)
    monkeypatch.setattr(xgboost_trees, "_COLUMNS", 7)
    predicted, expected = fit(CONFIGS["gbtree"], whole)[1], plain_xgboost(whole)
    errors = [np.sqrt(np.mean((each - labels) ** 2)) for each in (predicted, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    assert not np.array_equal(predicted, expected)
    assert errors[1] < 0.6 * labels.std()


def test_devices():
    for library in ("xgboost", "lightgbm"):
        assert tree_library(library).device_for("cpu") == ("cpu", None)
    expected = ("cuda", None) if torch.cuda.is_available() else ("cpu", "XGBoost finds no GPU that it can use")
    assert xgboost_trees.xgboost_device("cuda") == expected
    device, reason = lightgbm_trees.lightgbm_device("cuda")
    if not torch.cuda.is_available():
        assert device == "cpu"
    assert (device == "cpu") == (reason is not None)
    assert device in ("cpu", "cuda")
    if reason is not None:
        assert "neither CUDA nor OpenCL" in reason
