"""The training loop on real networks: it learns, it stops on a loss that is not finite, and stays invariant."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfn_transformer.errors import RunError
from nfn_transformer.groups.equivariance_error import equivariance_error
from nfn_transformer.groups.published import GroupElement
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.data import prepare, recorded_split
from nfn_transformer.training.final_report import evaluate_best
from nfn_transformer.training.loop import train
from nfn_transformer.training.metrics import measure_logits
from nfn_transformer.training.predictions import predict_logits
from nfn_transformer.training.run_directory import RunDirectory, read_json
from nfn_transformer.training.saved_predictor import load_predictor
from nfn_transformer.training.trained_predictor import TrainedNetwork
from nfn_transformer.training.trainer import Trainer
from nfn_transformer.zoo.split import split_runs

CPU = torch.device("cpu")
RECORD = Path("split.json")


@pytest.fixture
def data(small):
    return prepare(small, split_runs(small.runs, 1))


def empty_run(path):
    path.mkdir()
    return RunDirectory(path)


def best_of(run):
    return TrainedNetwork(load_predictor(run.best_file)[0], CPU)


@pytest.fixture
def run(tmp_path):
    return empty_run(tmp_path / "run")


def trainer(data, run, report=lambda record: None, model_config=None, **settings):
    model = build_predictor(data.zoo.spec, model_config or ModelConfig(), seed=1)
    return Trainer(model, data, TrainingConfig(**{"epochs": 4, "lr": 1e-2, **settings}), 1, run, report)


def test_training_lowers_the_loss_and_predictions_stay_invariant(data, run, generator):
    training = trainer(data, run, epochs=15, model_config=ModelConfig(cls_mode="hnps"))
    history = train([training])[0].history
    assert history[-1].train_loss < history[0].train_loss - 0.02
    weights = data.zoo.weights(torch.arange(20))
    g = GroupElement.sample(data.zoo.spec, generator, 1e3, classifier=True)
    double = training.model.double()
    assert equivariance_error(double.predict, g, weights.to(torch.float64)) < 1e-9
    gentle = GroupElement.sample(data.zoo.spec, generator, 10.0, dtype=torch.float32, classifier=True)
    assert equivariance_error(double.float().predict, gentle, weights, dtype=None) < 1e-4


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best_epoch(data, run):
    def poison_after_two(record):
        if record.epoch == 2:
            with torch.no_grad():
                training.model.output.bias.fill_(math.nan)

    training = trainer(data, run, poison_after_two)
    progress = train([training])[0]
    assert [record.epoch for record in progress.history] == [1, 2]
    assert progress.diverged.startswith("epoch 3: the loss is not finite (training nan")
    test = evaluate_best(data, progress, best_of(run), run, seed=1)
    results = read_json(run.results_file)
    assert results["status"] == progress.diverged
    assert results["best_epoch"] == progress.best.epoch
    assert math.isfinite(test.loss)


def test_the_best_epoch_by_validation_is_kept_and_tested(data, run):
    """Later epochs of a spoiled model are worse: what is tested must be the epoch before."""
    kept = {}

    def spoil_after_two(record):
        if record.epoch == 2:
            kept.update({name: tensor.clone() for name, tensor in training.model.state_dict().items()})
            with torch.no_grad():
                training.model.output.weight.neg_()

    training = trainer(data, run, spoil_after_two, lr=1e-4)
    training.model.output.bias.requires_grad_(False)
    # Made good before it starts, so that the second epoch is the best for certain.
    warm = trainer(data, empty_run(run.path.parent / "warm"), epochs=12)
    train([warm])
    training.model.load_state_dict(warm.model.state_dict())
    progress = train([training])[0]
    assert progress.best.epoch <= 2
    test = evaluate_best(data, progress, best_of(run), run, seed=1)
    model, epoch = load_predictor(run.best_file)
    assert epoch == progress.best.epoch == read_json(run.results_file)["best_epoch"]
    if epoch == 2:
        assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    for index, found in ((data.split.validation, progress.best.validation), (data.split.test, test)):
        assert measure_logits(predict_logits(model, data.zoo, index), data.zoo.labels[index]) == found


def test_the_schedule_reaches_the_optimizer(data, run):
    training = trainer(data, run, epochs=3, warmup_epochs=2, lr=1e-2, optimizer="sgd", batch_size=len(data.split.train))
    weight = training.model.output.bias
    steps = []
    before = weight.item()

    def note(record):
        nonlocal before
        steps.append((record.lr, before - weight.item(), weight.grad.item()))
        before = weight.item()

    training.report = note
    train([training])
    assert [lr for lr, _, _ in steps] == pytest.approx([5e-3, 1e-2, 1e-5])
    for lr, moved, gradient in steps:
        assert moved == pytest.approx(lr * gradient, rel=1e-3, abs=1e-8)


def test_the_test_side_is_never_read_while_training(data, run):
    poisoned = data.zoo.rows.clone()
    poisoned[data.split.test] = math.nan
    blind = replace(data, zoo=replace(data.zoo, rows=poisoned))
    (seen,) = train([trainer(blind, run)])
    (expected,) = train([trainer(data, empty_run(run.path.parent / "other"))])
    assert [r.validation for r in seen.history] == [r.validation for r in expected.history]


def test_resuming_after_each_epoch_equals_one_unbroken_run(data, run, tmp_path):
    whole = trainer(data, run)
    train([whole])

    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    broken = empty_run(tmp_path / "broken")
    for _ in range(4):
        part = trainer(data, broken, stop)
        part.resume()
        with pytest.raises(Stop):
            train([part])
    last = trainer(data, broken)
    last.resume()
    train([last])
    assert broken.best_file.read_bytes() == run.best_file.read_bytes()
    for a, b in zip(last.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_files_that_a_kill_left_behind_the_state_follow_it_again(data, run):
    training = trainer(data, run)
    train([training])
    best, metrics = run.best_file.read_bytes(), run.metrics_file.read_text()
    run.best_file.unlink()
    run.metrics_file.write_text("".join(metrics.splitlines(keepends=True)[:-1]))
    again = trainer(data, run)
    again.resume()
    assert run.best_file.read_bytes() == best
    assert run.metrics_file.read_text() == metrics
    assert again.progress == training.progress


def test_damaged_state_and_weights_are_named(data, run):
    train([trainer(data, run, epochs=1)])
    torch.save({"model": {}}, run.state_file.with_name("other"))
    whole = run.state_file.read_bytes()
    run.state_file.write_bytes(run.state_file.with_name("other").read_bytes())
    with pytest.raises(RunError, match=r"state.pt: is not the state of this run: 'best'"):
        trainer(data, run).resume()
    run.state_file.write_bytes(whole[:1000])
    with pytest.raises(RunError, match=r"state.pt: cannot be read"):
        trainer(data, run).resume()
    run.best_file.write_bytes(run.best_file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"best.safetensors: not a predictor of this version"):
        load_predictor(run.best_file)
    with pytest.raises(RunError, match=r"absent: no such file; a run writes it after its first epoch"):
        load_predictor(run.path / "absent")


def test_a_saved_predictor_is_rebuilt_from_its_file_alone(data, run):
    training = trainer(
        data, run, model_config=ModelConfig(cls_mode="hnps", options={"transformers_nfn_channels": (3, 4)}), epochs=1
    )
    train([training])
    model, epoch = load_predictor(run.best_file)
    weights = data.zoo.weights(torch.arange(9))
    assert epoch == 1
    assert (model.spec, model.config) == (training.model.spec, training.model.config)
    assert torch.equal(model(weights), training.model(weights))


def test_a_changed_zoo_is_no_longer_the_runs_own(data):
    record = data.record
    assert torch.equal(recorded_split(data.zoo, record, RECORD).test, data.split.test)
    rows = data.zoo.rows.clone()
    rows[data.split.train[3], 5] += 1e-3
    with pytest.raises(RunError, match="weights or accuracies have changed"):
        recorded_split(replace(data.zoo, rows=rows), record, RECORD)
    for damaged in (5, [["a"]], None):
        with pytest.raises(RunError, match=r"split.json: is not the split of a run"):
            recorded_split(data.zoo, {**record, "test": damaged}, RECORD)
    with pytest.raises(RunError, match="not in the zoo"):
        recorded_split(data.zoo, {**record, "test": ["absent.pt"]}, RECORD)
