"""The forest of extremely randomised trees: what scikit-learn fits, kept without pickle, and refused where damaged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.ensemble import ExtraTreesRegressor

from nfn_transformer.trees import extra_trees
from nfn_transformer.trees.config import TREE_MODELS, TreeConfig
from nfn_transformer.trees.extra_trees import ExtraTrees
from nfn_transformer.trees.fitting import Settings, Sides
from nfn_transformer.trees.libraries import tree_library

EXTRA_TREES = TREE_MODELS["extra_trees"]
FEW = TreeConfig("scikit-learn", {"n_estimators": 25, "min_samples_leaf": 2})


class Observer:
    """Keeps what it was shown."""

    def __init__(self):
        self.rounds = []

    def finish_round(self, train_loss, predictions):
        self.rounds.append((train_loss, predictions))
        return True, True


def data(rows: int = 90, seed: int = 0):
    """Inputs and labels to train on, and others."""
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(2 * rows, 5)).astype(np.float32)
    labels = 0.3 + (inputs[:, 0] > 0) * 0.4 + 0.1 * np.tanh(inputs[:, 1]) + 0.05 * draw.uniform(size=2 * rows)
    return inputs[:rows], labels[:rows].astype(np.float32), inputs[rows:], labels[rows:].astype(np.float32)


def fit(seed=3, threads=1, rows=90, config=FEW):
    sides, observer = Sides(*data(rows)), Observer()
    model = tree_library("scikit-learn").fit(
        Settings(config, EXTRA_TREES.boosting, seed, threads, "cpu"), sides, observer
    )
    assert not {"train", "validation"} & vars(sides).keys()
    return model, observer


def by_hand(seed=3):
    inputs, labels, *_ = data()
    return ExtraTreesRegressor(25, min_samples_leaf=2, random_state=seed).fit(inputs, labels)


def test_it_predicts_what_scikit_learn_predicts():
    model, observer = fit()
    train, labels, others, _ = data()
    expected = by_hand().predict(others)
    assert model.predict(others) == pytest.approx(expected, abs=1e-12)
    assert len(observer.rounds) == 1
    loss, shown = observer.rounds[0]
    assert shown == pytest.approx(expected, abs=1e-12)
    assert loss == pytest.approx(np.sqrt(np.mean((by_hand().predict(train) - labels) ** 2)))
    assert model.trees == 25
    assert expected.std() > 0.1


def test_the_published_name_has_500_trees():
    assert EXTRA_TREES.config() == TreeConfig("scikit-learn", {"n_estimators": 500, "min_samples_leaf": 2}, "raw")
    assert EXTRA_TREES.config("statistics").name == "scikit-learn-extra_trees-statistics"


def test_the_seed_decides_every_bit_and_threads_none():
    (one, _), (same, _), (parallel, _), (other, _) = fit(), fit(), fit(threads=2), fit(seed=4)
    assert one.content == same.content == parallel.content
    assert one.content != other.content


def test_many_networks_are_predicted_in_parts(monkeypatch):
    model, _ = fit()
    _, _, others, _ = data()
    whole = model.predict(others)
    monkeypatch.setattr(extra_trees, "_ROWS_AT_ONCE", 7)
    assert np.array_equal(model.predict(others), whole)
    assert model.predict(others[:0]).shape == (0,)


def test_what_is_written_predicts_the_same():
    model, _ = fit()
    _, _, others, _ = data()
    again = tree_library("scikit-learn").parse(model.content)
    assert np.array_equal(again.predict(others), model.predict(others))
    assert (again.trees, again.content) == (model.trees, model.content)


def test_fewer_numbers_than_the_trees_read_are_refused():
    model, _ = fit()
    with pytest.raises(ValueError, match="networks of 2 numbers, the trees read number 4"):
        model.predict(data()[0][:, :2])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("left", lambda left: left * 0, "'left' names nodes outside of their tree"),
        ("right", lambda right: np.where(right > 0, len(right) - 1, 0).astype("i4"), "'right' names nodes outside"),
        ("left", lambda left: left.astype("i8"), "'left' is int64"),
        ("threshold", lambda threshold: threshold[1:], "'threshold' is float64"),
        ("threshold", lambda threshold: threshold * np.nan, "a threshold is not finite"),
        ("value", lambda value: value + np.inf, "a leaf's value is not finite"),
        ("roots", lambda roots: roots[::-1].copy(), "'roots' are not where trees begin"),
        ("roots", lambda roots: roots[:0], "'roots' are not where trees begin"),
        ("roots", lambda roots: roots + 1, "'roots' are not where trees begin"),
        ("roots", lambda roots: np.array([0, 2**63 - 1, -2]), "'roots' are not where trees begin"),
        ("roots", None, "it holds feature, left, right, threshold, value, expected"),
    ],
)
def test_damaged_arrays_are_refused(name, change, message):
    arrays = load(fit()[0].content)
    changed = {**arrays, name: change(arrays[name])} if change else {k: v for k, v in arrays.items() if k != name}
    with pytest.raises(ValueError, match=message):
        ExtraTrees(save(changed))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(draw):
    """Whatever bytes change: an error, or trees whose predictions end."""
    content = bytearray(CONTENT)
    for _ in range(draw.draw(st.integers(1, 3))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        try:
            model = ExtraTrees(damaged)
            predicted = model.predict(data()[0])
        except ValueError:
            continue
        assert np.isfinite(predicted).all()


CONTENT = fit(rows=8)[0].content


@pytest.mark.parametrize("content", [b"", b"text", b"{}", bytes(1000)])
def test_what_is_no_file_of_arrays_is_refused(content):
    with pytest.raises(ValueError, match=r"\w"):
        ExtraTrees(content)


def test_devices():
    assert extra_trees.extra_trees_device("cpu") == ("cpu", None)
    assert extra_trees.extra_trees_device("cuda:1") == ("cpu", "scikit-learn has no GPU")
