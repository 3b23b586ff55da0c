"""Blend of forest and Gaussian process: what scikit-learn's two give on average, kept without pickle."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from scipy.special import expit, logit
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.preprocessing import QuantileTransformer

from nfn_transformer.trees import gaussian_process
from nfn_transformer.trees.blend import Blend
from nfn_transformer.trees.config import TREE_MODELS, TreeConfig
from nfn_transformer.trees.fitting import Settings, Sides
from nfn_transformer.trees.libraries import tree_library

FEW = TreeConfig("blend", {"n_estimators": 15, "min_samples_leaf": 2, "max_features": 1 / 3})


class Observer:
    """Keeps what it was shown."""

    def finish_round(self, train_loss, predictions):
        self.loss, self.shown = train_loss, predictions
        return True, True


def data(rows=60, seed=0):
    """Inputs and accuracies to train on, and others; one column never changes."""
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(2 * rows, 6)).astype(np.float32)
    inputs[:, 5] = 0.3
    labels = expit(inputs[:, 0] + 0.3 * inputs[:, 1] ** 2 + 0.05 * draw.normal(size=2 * rows))
    return inputs[:rows], labels[:rows].astype(np.float32), inputs[rows:], labels[rows:].astype(np.float32)


def fit(of_shares=True):
    observer = Observer()
    chosen = Settings(FEW, TREE_MODELS["blend"].boosting, 3, 1, "cpu", of_shares)
    return tree_library("blend").fit(chosen, Sides(*data()), observer), observer


@pytest.fixture(scope="module")
def blend():
    return fit()[0]


@pytest.mark.parametrize("of_shares", [True, False])
def test_it_predicts_what_scikit_learn_predicts_on_average(of_shares):
    model, observer = fit(of_shares)
    train, labels, others, _ = (part.astype(np.float64) for part in data())
    targets = logit(labels.clip(0.005, 0.995)) if of_shares else labels
    forest = ExtraTreesRegressor(15, min_samples_leaf=2, max_features=1 / 3, random_state=3).fit(train, targets)

    def scaled(inputs):
        return ((inputs[:, :5] - train[:, :5].mean(0)) / train[:, :5].std(0)).clip(-4, 4) / np.sqrt(5)

    quantiles = QuantileTransformer(n_quantiles=60).fit(train[:, :5])

    def ranked(inputs):
        return (quantiles.transform(inputs[:, :5]) - 0.5) * np.sqrt(12 / 5)

    # Six features are six parts; the constant one has a length scale that only the prior sees.
    kernel = ConstantKernel(1.0) * RBF(np.ones(5)) + WhiteKernel(0.1)
    mean, deviation = targets.mean(), targets.std()
    processes = []
    for alike in (scaled, ranked):
        process = GaussianProcessRegressor(kernel, optimizer=gaussian_process.most_probable)
        process.fit(alike(train), (targets - mean) / deviation)
        processes.append(process.predict(alike(others)) * deviation + mean)
    mean_of_all = forest.predict(others) / 2 + processes[0] / 4 + processes[1] / 4
    expected = expit(mean_of_all) if of_shares else mean_of_all
    assert model.predict(others.astype(np.float32)) == pytest.approx(expected, abs=1e-4)  # the optimiser's tolerance
    assert observer.shown == pytest.approx(model.predict(others.astype(np.float32)))
    assert model.trees == 15


def test_the_likelihood_is_that_of_scikit_learn():
    draw = np.random.default_rng(1)
    inputs, targets, logarithms = draw.normal(size=(12, 3)), draw.normal(size=12), 0.5 * draw.normal(size=5)
    kernel = ConstantKernel(1.0) * RBF(np.ones(3)) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(inputs, targets)
    value, gradient = process.log_marginal_likelihood(logarithms, eval_gradient=True)
    squares = (inputs.T[:, :, None] - inputs.T[:, None]) ** 2
    found = gaussian_process.negative_log_likelihood(logarithms, squares, targets)
    assert found[0] == pytest.approx(-value)
    assert found[1] == pytest.approx(-gradient)


def test_a_part_that_tells_more_has_a_shorter_length_scale():
    train, labels, _, _ = data()
    arrays = gaussian_process.fit_process(train.astype(np.float64)[:, [0, 1, 3]], labels, seed=1)
    telling, of_squares, of_nothing = arrays["length"]
    assert of_nothing > 1.5 * telling
    assert of_nothing > of_squares
    wide = np.repeat(train.astype(np.float64)[:, [0, 3]], 64, axis=1) / 8
    lengths = gaussian_process.fit_process(wide, labels, seed=1)["length"]
    assert (lengths.reshape(32, 4) == lengths.reshape(32, 4)[:, :1]).all(), "four features share a length scale"
    assert lengths[:64].max() < lengths[64:].min()


def test_one_feature_and_a_process_of_an_earlier_version_are_read():
    train, labels, others, _ = data()
    arrays = gaussian_process.fit_process(train.astype(np.float64)[:, :1], labels, seed=1)
    earlier = {**arrays, "length": np.array(float(arrays["length"][0]))}
    for process in (arrays, earlier):
        gaussian_process.check_process(process, 1)
    predicted = gaussian_process.predict_process(others[:, :1], arrays)
    assert gaussian_process.predict_process(others[:, :1], earlier) == pytest.approx(predicted, abs=1e-12)


def test_it_is_nearer_to_the_truth_than_the_forest_alone(blend):
    train, labels, others, truth = data()
    forest = ExtraTreesRegressor(15, min_samples_leaf=2, max_features=1 / 3, random_state=3).fit(train, labels)
    error, alone = (np.abs(predicted - truth).mean() for predicted in (blend.predict(others), forest.predict(others)))
    assert error < 0.8 * alone


def test_of_many_networks_a_random_part_counts(monkeypatch):
    monkeypatch.setattr(gaussian_process, "_MOST_NETWORKS", 40)
    train, labels, others, truth = data(rows=400)
    arrays = gaussian_process.fit_process(train, labels, seed=1)
    assert len(arrays["seen"]) == 40
    again, other = (gaussian_process.fit_process(train, labels, seed) for seed in (1, 2))
    assert all((arrays[name] == again[name]).all() for name in arrays)
    assert (arrays["seen"] != other["seen"]).any()
    error = np.abs(gaussian_process.predict_process(others, arrays) - truth).mean()
    assert error < 0.5 * np.abs(truth - labels.mean()).mean()


def test_its_file_is_the_model(blend):
    others = data()[2]
    assert (Blend.parse(blend.content).predict(others) == blend.predict(others)).all()
    assert blend.predict(others[:1]) == pytest.approx(blend.predict(others)[:1], abs=1e-12)
    assert blend.predict(others[:0]).shape == (0,)


def test_the_features_that_it_keeps_are_in_memory_once(blend):
    arrays = load(blend.content)
    for name in ("scaled", "ranked"):
        arrays |= {f"{name}.seen": np.ones((20_000, 6)), f"{name}.coefficients": np.ones(20_000)}
    tracemalloc.start()
    try:
        content = save(arrays)
        model, size = Blend.parse(content), len(content)
        del content
        assert size < tracemalloc.get_traced_memory()[0] < 1.3 * size
        assert model.content == save(arrays)
    finally:
        tracemalloc.stop()


def test_its_library_and_model_have_one_name():
    assert TREE_MODELS["blend"].config("consensus").name == "blend-consensus"


def test_networks_of_other_numbers_are_refused(blend):
    with pytest.raises(ValueError, match="networks of 7 numbers, the blend reads 6"):
        blend.predict(np.zeros((3, 7), dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forest", np.zeros(8, np.uint8)),
        ("of_logits", np.zeros(0, np.uint8)),
        ("scaled.length", np.array(0.0)),
        ("scaled.length", np.ones(5)),
        ("ranked.length", np.array(np.nan)),
        ("scales.scale", np.zeros(5)),
        ("scales.quantiles", np.array([[1.0] * 6, [0.0] * 6])),
        ("scaled.seen", np.zeros((3, 6), np.float32)),
        ("scaled.coefficients", np.zeros(2)),
        ("ranked.offset", np.zeros(2)),
        ("ranked.more", np.zeros(1)),
        ("other.length", np.array(1.0)),
        ("more", np.zeros(1)),
    ],
)
def test_a_damaged_file_is_refused(blend, name, value):
    with pytest.raises(ValueError, match="no blend"):
        Blend.parse(save({**load(blend.content), name: value}))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=64))
def test_other_bytes_are_refused(content):
    with pytest.raises(ValueError, match="no blend"):
        Blend.parse(content)
