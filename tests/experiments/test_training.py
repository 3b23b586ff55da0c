"""The training loop on real networks: it learns, it stops on a loss that is not finite, and stays invariant."""

import math
from dataclasses import replace

import pytest
import torch
from symmetry import symmetry_defect

from nfn_transformer.errors import RunError
from nfn_transformer.experiments.config import TrainingConfig
from nfn_transformer.experiments.data import prepare, recorded_split
from nfn_transformer.experiments.final_report import evaluate_best
from nfn_transformer.experiments.run_directory import RunDirectory, read_json
from nfn_transformer.experiments.saved_predictor import load_predictor
from nfn_transformer.experiments.training import Trainer
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.weights.group import GroupElement
from nfn_transformer.zoo.split import split_runs

CPU = torch.device("cpu")


@pytest.fixture
def data(small):
    return prepare(small, split_runs(small.runs, 1), CPU)


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run")


def trainer(data, run, report=lambda record: None, model_config=None, **settings):
    model = build_predictor(data.zoo.spec, model_config or ModelConfig(), seed=1)
    return Trainer(model, data, TrainingConfig(**{"epochs": 4, "lr": 1e-2, **settings}), 1, run, report)


def test_training_lowers_the_loss_and_predictions_stay_invariant(data, run, generator):
    training = trainer(data, run, epochs=15, model_config=ModelConfig(cls_mode="hnps"))
    history = training.train().history
    assert history[-1].train_loss < history[0].train_loss - 0.02
    weights = data.zoo.weights(torch.arange(20))
    g = GroupElement.sample(data.zoo.spec, generator, 1e3, classifier=True)
    double = training.model.double()
    assert symmetry_defect(double.predict, weights.to(torch.float64), g.act) < 1e-9
    gentle = GroupElement.sample(data.zoo.spec, generator, 10.0, dtype=torch.float32, classifier=True)
    assert symmetry_defect(double.float().predict, weights, gentle.act) < 1e-4


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best_epoch(data, run):
    def poison_after_two(record):
        if record.epoch == 2:
            with torch.no_grad():
                training.model.output.bias.fill_(math.nan)

    training = trainer(data, run, poison_after_two)
    progress = training.train()
    assert [record.epoch for record in progress.history] == [1, 2]
    assert progress.diverged.startswith("epoch 3: the loss is not finite (training nan")
    test = evaluate_best(data, progress, run)
    results = read_json(run.results_file)
    assert results["status"] == progress.diverged
    assert results["best_epoch"] == progress.best.epoch
    assert math.isfinite(test.loss)


def test_the_test_side_is_never_read_while_training(data, run):
    poisoned = data.zoo.rows.clone()
    poisoned[data.split.test] = math.nan
    blind = replace(data, zoo=replace(data.zoo, rows=poisoned))
    seen, expected = trainer(blind, run).train(), trainer(data, RunDirectory.create(run.path.parent / "other")).train()
    assert [r.validation for r in seen.history] == [r.validation for r in expected.history]


def test_resuming_after_each_epoch_equals_one_unbroken_run(data, run, tmp_path):
    whole = trainer(data, run)
    whole.train()

    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    broken = RunDirectory.create(tmp_path / "broken")
    for _ in range(4):
        part = trainer(data, broken, stop)
        part.resume()
        with pytest.raises(Stop):
            part.train()
    last = trainer(data, broken)
    last.resume()
    last.train()
    assert broken.best_file.read_bytes() == run.best_file.read_bytes()
    for a, b in zip(last.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_damaged_state_and_weights_are_named(data, run):
    trainer(data, run, epochs=1).train()
    run.state_file.write_bytes(run.state_file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"state.pt: cannot be read"):
        trainer(data, run).resume()
    run.best_file.write_bytes(run.best_file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"best.safetensors: not a predictor of this version"):
        load_predictor(run.best_file)
    with pytest.raises(RunError, match=r"absent: no such file; a run writes it after its first epoch"):
        load_predictor(run.path / "absent")


def test_a_saved_predictor_is_rebuilt_from_its_file_alone(data, run):
    training = trainer(data, run, model_config=ModelConfig(cls_mode="hnps", transformers_nfn_channels=(3, 4)), epochs=1)
    training.train()
    model, epoch = load_predictor(run.best_file)
    weights = data.zoo.weights(torch.arange(9))
    assert epoch == 1
    assert (model.spec, model.config) == (training.model.spec, training.model.config)
    assert torch.equal(model(weights), training.model(weights))


def test_a_changed_zoo_is_no_longer_the_runs_own(data):
    record = data.to_record()
    assert torch.equal(recorded_split(data.zoo, record).test, data.split.test)
    rows = data.zoo.rows.clone()
    rows[3, 5] += 1e-3
    with pytest.raises(RunError, match="weights or accuracies have changed"):
        recorded_split(replace(data.zoo, rows=rows), record)
    with pytest.raises(RunError, match="not in the zoo"):
        recorded_split(data.zoo, {**record, "test": ["absent.pt"]})
