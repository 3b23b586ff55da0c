"""What tests of trainings share: a zoo in double precision, and trainers on it."""

from dataclasses import replace

import pytest

from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.data import prepare
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.trainer import Trainer
from nfn_transformer.zoo.split import split_runs

PUBLISHED = ModelConfig()


@pytest.fixture(scope="module")
def double(small):
    """The small zoo in double precision, where rounding cannot grow to anything in a few epochs."""
    return replace(small, rows=small.rows.double(), labels=small.labels.double())


@pytest.fixture
def new_trainer(double, tmp_path):
    """Makes trainers in double precision, each in a new directory."""
    made = iter(range(100))

    def make(seed=1, zoo=double, split=None, model_config=PUBLISHED, report=lambda record: None, **settings):
        run = RunDirectory(tmp_path / str(next(made)))
        run.path.mkdir()
        data = prepare(zoo, split_runs(zoo.runs, seed) if split is None else split)
        model = build_predictor(zoo.spec, model_config, seed).double()
        config = TrainingConfig(**{"epochs": 3, "warmup_epochs": 1, "lr": 1e-2, **settings})
        return Trainer(model, data, config, seed, run, report)

    return make
