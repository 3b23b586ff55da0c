"""The training loop on real networks: it learns, it stops on a loss that is not finite, and stays invariant."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainings import Report, build_run

from nfn_transformer.errors import RunError
from nfn_transformer.groups.equivariance_error import equivariance_error
from nfn_transformer.groups.published import GroupElement
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig, installed_versions
from nfn_transformer.training.data import prepare, recorded_split, split_runs
from nfn_transformer.training.loop import train
from nfn_transformer.training.metrics import measure_logits
from nfn_transformer.training.report import evaluate_best
from nfn_transformer.training.run import STEP_THREADS, begin_runs, resume_runs
from nfn_transformer.training.run_directory import RunDirectory, read_json
from nfn_transformer.training.trained_predictor import TrainedNetwork, load_network, predict_outputs

CPU = torch.device("cpu")
RECORD = Path("split.json")


@pytest.fixture
def data(small):
    return prepare(small, split_runs(small.runs, 1))


def empty_directory(path):
    path.mkdir()
    return RunDirectory(path)


def best_of(directory):
    return TrainedNetwork(load_network(directory.best_file)[0], CPU)


@pytest.fixture
def directory(tmp_path):
    return empty_directory(tmp_path / "directory")


def new_run(data, directory, report=None, model_config=None, **settings):
    model = build_predictor(data.zoo.spec, model_config or ModelConfig(), seed=1)
    return build_run(model, data, directory, report=report, **{"epochs": 4, **settings})


def test_training_lowers_the_loss_and_predictions_stay_invariant(data, directory, generator):
    run = new_run(data, directory, epochs=15, model_config=ModelConfig(cls_mode="hnps"))
    train([run])
    history = run.history.records
    assert history[-1].train_loss < history[0].train_loss - 0.02
    weights = data.zoo.weights(torch.arange(20))
    g = GroupElement.sample(data.zoo.spec, generator, 1e3, classifier=True)
    double = run.model.double()
    assert equivariance_error(double.predict, g, weights.to(torch.float64)) < 1e-9
    gentle = GroupElement.sample(data.zoo.spec, generator, 10.0, dtype=torch.float32, classifier=True)
    assert equivariance_error(double.float().predict, gentle, weights, dtype=None) < 1e-4


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best_epoch(data, directory):
    def poison_after_two(record):
        if record.number == 2:
            with torch.no_grad():
                run.model.output.bias.fill_(math.nan)

    run = new_run(data, directory, poison_after_two)
    train([run])
    assert [record.number for record in run.history.records] == [1, 2]
    assert run.history.diverged.startswith("epoch 3: the loss is not finite (training nan")
    test = evaluate_best(data, run.history, best_of(directory), directory, seed=1)
    results = read_json(directory.results_file)
    assert results["status"] == run.history.diverged
    assert results["best_epoch"] == run.history.best.number
    assert math.isfinite(test.loss)


def test_the_best_epoch_by_validation_is_kept_and_tested(data, directory):
    """Later epochs of a spoiled model are worse: what is tested must be the epoch before."""
    kept = {}

    def spoil_after_two(record):
        if record.number == 2:
            kept.update({name: tensor.clone() for name, tensor in run.model.state_dict().items()})
            with torch.no_grad():
                run.model.output.weight.neg_()

    run = new_run(data, directory, spoil_after_two, lr=1e-4)
    run.model.output.bias.requires_grad_(False)
    # Made good before it starts, so that the second epoch is the best for certain.
    warm = new_run(data, empty_directory(directory.path.parent / "warm"), epochs=12)
    train([warm])
    run.model.load_state_dict(warm.model.state_dict())
    train([run])
    assert run.history.best.number <= 2
    test = evaluate_best(data, run.history, best_of(directory), directory, seed=1)
    model, epoch, _ = load_network(directory.best_file)
    assert epoch == run.history.best.number == read_json(directory.results_file)["best_epoch"]
    if epoch == 2:
        assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    for index, found in ((data.split.validation, run.history.best.validation), (data.split.test, test)):
        assert measure_logits(predict_outputs(model, data.zoo, index), data.zoo.labels[index]) == found


def test_the_schedule_reaches_the_optimizer(data, directory):
    run = new_run(
        data, directory, epochs=3, warmup_epochs=2, lr=1e-2, optimizer="sgd", batch_size=len(data.split.train)
    )
    weight = run.model.output.bias
    steps = []
    before = weight.item()

    def note(record):
        nonlocal before
        steps.append((record.lr, before - weight.item(), weight.grad.item()))
        before = weight.item()

    run.trackers = [Report(note)]
    train([run])
    assert [lr for lr, _, _ in steps] == pytest.approx([5e-3, 1e-2, 1e-5])
    for lr, moved, gradient in steps:
        assert moved == pytest.approx(lr * gradient, rel=1e-3, abs=1e-8)


def test_the_test_side_is_never_read_while_training(data, directory):
    poisoned = data.zoo.rows.clone()
    poisoned[data.split.test] = math.nan
    blind = replace(data, zoo=replace(data.zoo, rows=poisoned))
    seen, expected = new_run(blind, directory), new_run(data, empty_directory(directory.path.parent / "other"))
    for run in (seen, expected):
        train([run])
    assert [r.validation for r in seen.history.records] == [r.validation for r in expected.history.records]


def test_resuming_after_each_epoch_equals_one_unbroken_run(data, directory, tmp_path):
    whole = new_run(data, directory)
    train([whole])

    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    broken = empty_directory(tmp_path / "broken")
    for _ in range(4):
        part = new_run(data, broken, stop)
        part.load_state()
        with pytest.raises(Stop):
            train([part])
    last = new_run(data, broken)
    last.load_state()
    train([last])
    assert broken.best_file.read_bytes() == directory.best_file.read_bytes()
    for a, b in zip(last.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_files_that_a_kill_left_behind_the_state_follow_it_again(data, directory):
    run = new_run(data, directory)
    train([run])
    best, metrics = directory.best_file.read_bytes(), directory.metrics_file.read_text()
    directory.best_file.unlink()
    directory.metrics_file.write_text("".join(metrics.splitlines(keepends=True)[:-1]))
    again = new_run(data, directory)
    again.load_state()
    assert directory.best_file.read_bytes() == best
    assert directory.metrics_file.read_text() == metrics
    assert again.history == run.history


def test_damaged_state_and_weights_are_named(data, directory):
    train([new_run(data, directory, epochs=1)])
    torch.save({"model": {}}, directory.state_file.with_name("other"))
    whole = directory.state_file.read_bytes()
    directory.state_file.write_bytes(directory.state_file.with_name("other").read_bytes())
    with pytest.raises(RunError, match=r"state.pt: is not the state of this run: 'best'"):
        new_run(data, directory).load_state()
    directory.state_file.write_bytes(whole[:1000])
    with pytest.raises(RunError, match=r"state.pt: cannot be read"):
        new_run(data, directory).load_state()
    directory.best_file.write_bytes(directory.best_file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"best.safetensors: not a predictor of this version"):
        load_network(directory.best_file)
    with pytest.raises(RunError, match=r"absent: no such file; a run writes it after its first epoch"):
        load_network(directory.path / "absent")


def test_a_saved_predictor_is_rebuilt_from_its_file_alone(data, directory):
    run = new_run(
        data,
        directory,
        model_config=ModelConfig(cls_mode="hnps", options={"transformers_nfn_channels": (3, 4)}),
        epochs=1,
    )
    train([run])
    model, epoch, _ = load_network(directory.best_file)
    weights = data.zoo.weights(torch.arange(9))
    assert epoch == 1
    assert (model.spec, model.config) == (run.model.spec, run.model.config)
    assert torch.equal(model(weights), run.model(weights))


def test_a_changed_zoo_is_no_longer_the_runs_own(data):
    record = data.record
    assert torch.equal(recorded_split(data.zoo, record, RECORD).test, data.split.test)
    rows = data.zoo.rows.clone()
    rows[data.split.train[3], 5] += 1e-3
    with pytest.raises(RunError, match="weights or labels have changed"):
        recorded_split(replace(data.zoo, rows=rows), record, RECORD)
    for damaged in (5, [["a"]], None):
        with pytest.raises(RunError, match=r"split.json: is not the split of a run"):
            recorded_split(data.zoo, {**record, "test": damaged}, RECORD)
    with pytest.raises(RunError, match="not in the zoo"):
        recorded_split(data.zoo, {**record, "test": ["absent.pt"]}, RECORD)


@pytest.mark.parametrize(
    ("model", "batch_size", "environment", "threads"),
    [
        (ModelConfig("mlp", "no", "no"), 8, {}, 1),
        (ModelConfig("mlp", "no", "no"), 10**6, {}, 2),
        (ModelConfig("mlp", "np", "no"), 8, {}, 2),
        (ModelConfig("mlp", "no", "no"), 8, {"OMP_NUM_THREADS": "2"}, 2),
    ],
    ids=["small steps", "large steps", "a branch that gains by threads", "the user's number"],
)
def test_small_steps_take_one_thread_and_so_do_resumed_ones(
    small, tmp_path, monkeypatch, model, batch_size, environment, threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    torch.set_num_threads(2)
    training = TrainingConfig(epochs=1, warmup_epochs=0, batch_size=batch_size)
    data = DataConfig(small.origin.dataset, small.origin.data_path)
    config = RunConfig(1, NETWORK, data, model, training, versions=installed_versions())
    (run,) = begin_runs([config], [tmp_path / "run"], zoo=small)
    seen = []
    run.trackers = [Report(lambda record: seen.append(torch.get_num_threads()))]
    train([run])
    assert seen == [threads]
    assert torch.get_num_threads() == 2
    run.directory.release()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # another number for new runs, not for this one
    (again,) = resume_runs([tmp_path / "run"])
    assert again.config.versions.get(STEP_THREADS, "2") == str(threads)
    again.directory.release()
