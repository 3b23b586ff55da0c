"""Costs of a run: the highest peak of its processes counts, and what earlier versions wrote stays readable."""

import math

import pytest
from trainings import build_run, stop_after

from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training import run as runs
from nfn_transformer.training.data import prepare, split_runs
from nfn_transformer.training.loop import train
from nfn_transformer.training.results import RunResult, with_costs
from nfn_transformer.training.run_directory import RunDirectory

RESULT = RunResult(0.5, 0.4, 0.6, 0.1, 0.1, 0.5, 42, 9, "complete", parameters=10)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_resumed_run_has_the_highest_peak_of_its_processes(small, tmp_path, monkeypatch, recorded):
    data, directory = prepare(small, split_runs(small.runs, 1)), RunDirectory(tmp_path)

    def trained(peak, stop=None):
        monkeypatch.setattr(runs, "peak_mib", lambda device: peak)
        model = build_predictor(data.zoo.spec, ModelConfig(enc_mode="statnn", cls_mode="no", emb_mode="no"), seed=1)
        run = build_run(model, data, directory, epochs=3)
        run.load_state()
        train([run]) if stop is None else stop_after(run, stop)

    with pytest.raises(KeyboardInterrupt):
        trained(300.0, stop=2)
    if not recorded:  # as earlier versions wrote it
        state = directory.read_state()
        state["history"] = [{name: row[name] for name in row if name != "peak_mib"} for row in state["history"]]
        directory.write_state(state)
    trained(100.0)
    found = with_costs(RESULT, directory.metrics_file)
    assert found.peak_mib == (300 if recorded else 100)
    assert found.epoch_seconds > 0


def test_costs_that_are_not_recorded_are_unknown(tmp_path):
    older = tmp_path / "metrics.csv"
    older.write_text("epoch,seconds\n1,0.5\n2,0.25\n3,4\n")
    found = with_costs(RESULT, older)
    assert found.epoch_seconds == 0.5
    assert math.isnan(found.peak_mib)
    assert math.isnan(with_costs(RESULT, tmp_path / "none").epoch_seconds)
