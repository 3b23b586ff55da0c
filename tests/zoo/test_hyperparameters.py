"""Hyperparameters of the metadata as numbers, for each checkpoint its own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_zoo import SmallZoo, state_dict

from nfn_transformer.training.augmentation import enlarge
from nfn_transformer.training.data import split_runs
from nfn_transformer.zoo.metadata import ABSENT, HYPERPARAMETER_COLUMNS, HYPERPARAMETERS, NUMBERS, encode
from nfn_transformer.zoo.reading import read_zoo


def numbers(**values: float) -> list[float]:
    """Return the numbers of a row with these values, by default of the optimizer adam."""
    optimizer = {f"optimizer is {name}": 0.0 for name in ("adam", "rmsprop", "sgd", "sgd_momentum")}
    values = {**dict.fromkeys(NUMBERS, ABSENT), **optimizer, "optimizer is adam": 1.0, **values}
    return [values[name] for name in HYPERPARAMETERS]


def test_each_checkpoint_has_those_of_its_row(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    zoo.add("run2", state_dict(2), lr="1e-3", dropout="0.25", n_layers="2")
    zoo.add("run0", state_dict(0), lr="0.5", dropout="", n_layers="2", optimizer="SGD")
    zoo.add("run1", b"torn", lr="0.7")
    zoo.add("run3", state_dict(3), lr="many", dropout="inf", n_layers="3", optimizer="lion")
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", allow_faulty=True, progress=False)
    assert read.runs == ["run0", "run2", "run3"]
    expected = [
        numbers(lr=0.5, n_layers=2, n_attention_heads=2, **{"optimizer is adam": 0.0, "optimizer is sgd": 1.0}),
        numbers(lr=1e-3, dropout=0.25, n_layers=2, n_attention_heads=2),
        numbers(n_layers=3, n_attention_heads=2, **{"optimizer is adam": 0.0}),
    ]
    assert torch.equal(read.hyperparameters, torch.tensor(expected))
    cached = read_zoo(zoo.path, "mnist", allow_faulty=True, progress=False)
    assert torch.equal(cached.hyperparameters, read.hyperparameters)


def test_a_table_without_them_tells_none(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo", runs=3)
    for row in zoo.rows:
        for column in HYPERPARAMETER_COLUMNS:
            row.pop(column, None)
    zoo.write_table()
    assert (read_zoo(zoo.path, "mnist", progress=False).hyperparameters == ABSENT).all()


def test_copies_have_those_of_their_originals(small):
    split = split_runs(small.runs, 1)
    zoo, larger = enlarge(small, split, 2, 1.0, seed=1)
    for side in ("train", "validation", "test"):
        originals = small.hyperparameters[getattr(split, side)]
        assert torch.equal(zoo.hyperparameters[getattr(larger, side)], torch.cat([originals, originals]))
    assert len(small.hyperparameters.unique(dim=0)) > 30


@given(st.dictionaries(st.sampled_from(HYPERPARAMETER_COLUMNS), st.text()))
def test_any_cells_become_finite_numbers(cells):
    encoded = encode(cells)
    assert len(encoded) == len(HYPERPARAMETERS)
    assert torch.isfinite(torch.tensor(encoded)).all()


@pytest.mark.parametrize(
    ("cell", "number"), [("0.1", 0.1), ("1e-8", 1e-8), ("2", 2.0), ("", ABSENT), ("nan", ABSENT), ("1e39", ABSENT)]
)
def test_known_cells(cell, number):
    assert encode({"lr": cell})[0] == number
