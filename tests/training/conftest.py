"""Fixtures of the tests of trainings: a zoo in double precision, and runs on it."""

from dataclasses import replace

import pytest
from trainings import build_run

from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.data import prepare, split_runs
from nfn_transformer.training.run_directory import RunDirectory

PUBLISHED = ModelConfig()


@pytest.fixture(scope="module")
def double(small):
    """The small zoo in double precision, where rounding cannot grow to anything in a few epochs."""
    return replace(small, rows=small.rows.double(), labels=small.labels.double())


@pytest.fixture(scope="module")
def few(small):
    """The first 24 networks in double precision: enough for three steps of an epoch by batches of 6."""
    chosen = range(24)
    picked = {name: [getattr(small, name)[i] for i in chosen] for name in ("names", "runs", "epochs")}
    tensors = {name: getattr(small, name)[:24].double() for name in ("rows", "labels", "hyperparameters")}
    return replace(small, **picked, **tensors)


@pytest.fixture
def new_run(double, tmp_path):
    """Makes runs in double precision, each in a new directory."""
    made = iter(range(100))

    def make(seed=1, zoo=double, split=None, model_config=PUBLISHED, report=None, **settings):
        directory = RunDirectory(tmp_path / str(next(made)))
        directory.path.mkdir()
        data = prepare(zoo, split_runs(zoo.runs, seed) if split is None else split)
        model = build_predictor(zoo.spec, model_config, seed).double()
        return build_run(model, data, directory, seed, report, **{"epochs": 3, "warmup_epochs": 1, **settings})

    return make
