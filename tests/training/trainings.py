"""How tests build runs, compare and interrupt them, and the options for small zoos in every kind of branch."""

from dataclasses import asdict

import pytest

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig
from nfn_transformer.training.history import History
from nfn_transformer.training.loop import train
from nfn_transformer.training.run import Run
from nfn_transformer.training.step import build_optimizer

# What helps on small zoos, in every kind of branch.
SMALL = {"dropout": 0.3, "standardize": True, "ensemble": 2}
SMALL_MODES = [
    ModelConfig(cls_mode="hnps", **SMALL),
    ModelConfig(enc_mode="statnn", log_magnitudes=True, **SMALL),
    ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no", **SMALL),
    ModelConfig(enc_mode="graph", cls_mode="no", emb_mode="no", options={"graph_dim": 4, "graph_layers": 2}, **SMALL),
]


class Report:
    """A tracker that calls a function with each finished epoch."""

    def __init__(self, log):
        self.log = log


def build_run(model, data, directory, seed=1, report=None, task=None, **settings):
    """A run of a model that need not be the one that its configuration would make."""
    training = TrainingConfig(**{"lr": 1e-2, **settings})
    config = RunConfig(seed, NETWORK, DataConfig("digits", "nowhere"), model.config, training)
    run = Run(config, data, model, build_optimizer(training, model.parameters()))
    if task is not None:
        run.task, run.history = task, History(better=task.is_better)
    run.directory = directory
    run.trackers = [] if report is None else [Report(report)]
    return run


def finished_epochs(run):
    return len(run.history.records)


def assert_equal(found, expected, tolerance=1e-9):
    assert [entry.number for entry in found.history.records] == [entry.number for entry in expected.history.records]
    for a, b in zip(found.history.records, expected.history.records, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=tolerance)
        assert asdict(a.validation) == pytest.approx(asdict(b.validation), rel=tolerance, nan_ok=True)
    for (name, a), b in zip(found.model.state_dict().items(), expected.model.state_dict().values(), strict=True):
        assert relative_error(a, b) < tolerance, name


def stop_after(run, epochs):
    def stop(record):
        if record.number == epochs:
            raise KeyboardInterrupt

    run.trackers = [Report(stop)]
    train([run])
