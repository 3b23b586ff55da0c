"""How tests compare trainings and interrupt them, and the options for small zoos in every kind of branch."""

import pytest

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training.loop import train

# What helps on small zoos, in every kind of branch.
SMALL = {"dropout": 0.3, "standardize": True, "ensemble": 2}
SMALL_MODES = [
    ModelConfig(cls_mode="hnps", **SMALL),
    ModelConfig(enc_mode="statnn", log_magnitudes=True, **SMALL),
    ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no", **SMALL),
    ModelConfig(enc_mode="graph", cls_mode="no", emb_mode="no", options={"graph_dim": 4, "graph_layers": 2}, **SMALL),
]


def assert_equal(found, expected, tolerance=1e-9):
    assert [entry.epoch for entry in found.progress.history] == [entry.epoch for entry in expected.progress.history]
    for a, b in zip(found.progress.history, expected.progress.history, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=tolerance)
        assert a.validation.loss == pytest.approx(b.validation.loss, rel=tolerance)
        assert a.validation.tau == b.validation.tau
    for (name, a), b in zip(found.model.state_dict().items(), expected.model.state_dict().values(), strict=True):
        assert relative_error(a, b) < tolerance, name


def stop_after(trainer, epochs):
    def report(record):
        if record.epoch == epochs:
            raise KeyboardInterrupt

    trainer.report = report
    train([trainer])
