"""Tasks: known losses and measures, labels of every kind, and a classification from the table to predictions."""

import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from trainings import assert_equal, build_run, stop_after

import nfn_transformer as nfn
from nfn_transformer import gbm, main, predict
from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.grids.recorded_runs import read_run
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.class_task import ClassMetrics, ClassTask, check_classes
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig
from nfn_transformer.training.data import draw_split, prepare, split_record, split_runs
from nfn_transformer.training.loop import train
from nfn_transformer.training.metrics import kendall_tau, tau_ceiling
from nfn_transformer.training.number_tasks import AccuracyTask, RegressTask, fit_scale
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.task import task_from_json
from nfn_transformer.zoo.reading import labels_among

COLOURS = ClassTask(classes=("2", "10", "red"))


def test_the_tau_that_ties_leave_is_that_of_ties_broken_at_random(generator):
    labels = torch.tensor([0.1, 0.1, 0.1, 0.3, 0.5, 0.5, 0.9])
    for _ in range(5):
        broken = labels + 1e-3 * torch.rand(7, generator=generator)
        assert kendall_tau(broken, labels) == pytest.approx(tau_ceiling(labels), abs=1e-12)
    assert tau_ceiling(labels) == pytest.approx(math.sqrt(17 / 21))
    assert tau_ceiling(labels.unique()) == 1
    assert math.isnan(tau_ceiling(torch.ones(4)))


def test_cross_entropy_of_batches_runs_and_members(generator):
    logits = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (2, 4, 5), generator=generator)
    losses = COLOURS.losses(logits, labels.double())
    expected = [cross_entropy(logits[run, member], labels[run, member]) for run in range(2) for member in range(4)]
    torch.testing.assert_close(losses.mean(-1).flatten(), torch.stack(expected))


def test_measures_of_classes():
    logits, labels = torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, 3]]), torch.tensor([0.0, 0, 2])
    measures = COLOURS.measure(logits, labels)
    assert measures.accuracy == pytest.approx(2 / 3)
    assert measures.loss == pytest.approx(cross_entropy(logits.double(), labels.long()).item())
    columns = COLOURS.columns(logits, labels)
    assert (columns["predicted"], columns["label"]) == (["2", "10", "red"], ["2", "2", "red"])
    assert columns["probability"][2] == pytest.approx(math.exp(3) / (2 + math.exp(3)))
    assert COLOURS.references(labels, torch.tensor([2.0, 2, 0])) == {"accuracy_of_the_most_common_class": 1 / 3}
    interval = COLOURS.interval(logits, labels, ["a", "b", "c"], seed=1)
    assert (interval.low, interval.high) == (0, 1)


@pytest.mark.parametrize(
    ("candidate", "best", "better"),
    [
        (ClassMetrics(2.0, 0.6), ClassMetrics(1.0, 0.5), True),
        (ClassMetrics(1.0, 0.5), ClassMetrics(2.0, 0.5), True),
        (ClassMetrics(1.0, 0.5), ClassMetrics(1.0, 0.5), False),
        (ClassMetrics(math.nan, 0.5), ClassMetrics(1.0, 0.5), False),
    ],
)
def test_the_best_epoch_by_accuracy_then_loss(candidate, best, better):
    assert COLOURS.is_better(candidate, best) is better


def test_standardised_numbers(small):
    split = split_runs(small.runs, 1)
    task = RegressTask(**fit_scale(replace(small, labels=small.labels * 1000 - 7), split, DataConfig()))
    labels = small.labels[split.train] * 1000 - 7
    standardised = (labels - task.mean) / task.deviation
    assert standardised.mean().item() == pytest.approx(0, abs=1e-5)
    assert task.losses(torch.zeros(len(labels)), labels).mean().item() == pytest.approx(1, abs=1e-5)
    assert task.predictions(standardised) == pytest.approx(labels.double(), abs=1e-3)
    assert task.measure(standardised + 1, labels).mae == pytest.approx(task.deviation, rel=1e-5)


@pytest.mark.parametrize("task", [AccuracyTask(), RegressTask(mean=2.0, deviation=3.0), COLOURS])
def test_tasks_as_json(task):
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task


@pytest.fixture(scope="module")
def coloured(small_zoo, tmp_path_factory):
    """The small zoo with three classes that weights tell, a number, and two rows without a label."""
    zoo = tmp_path_factory.mktemp("coloured")
    for entry in small_zoo.iterdir():
        if entry.name != "metadata":
            (zoo / entry.name).symlink_to(entry)
    with open(small_zoo / "metadata/digits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = sorted(float(row["test_top1_accuracy"]) for row in rows)
    for row in rows:
        third = 3 * accuracies.index(float(row["test_top1_accuracy"])) // len(rows)
        row["colour"] = ("10.0", "2", "red")[third]
        row["label"] = str(100 * third - 150)
    rows[4]["colour"], rows[5]["label"] = "", "much"
    (zoo / "metadata").mkdir()
    with open(zoo / "metadata/digits.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return zoo


@pytest.fixture(scope="module")
def classes(coloured):
    return nfn.read_zoo(coloured, "digits", columns=nfn.Columns(label="colour"), labels="class", progress=False)


def test_labels_of_every_kind(coloured, classes):
    assert classes.classes == ("2", "10", "red")
    assert (len(classes), classes.report.fault_lines()[0].split(": ", 1)[1]) == (
        59,
        "label: no label, expected text or a number",
    )
    again = nfn.read_zoo(coloured, "digits", columns=nfn.Columns(label="colour"), labels="class", progress=False)
    assert torch.equal(again.labels, classes.labels)
    numbers = nfn.read_zoo(coloured, "digits", labels="number", progress=False)
    assert numbers.labels.unique().tolist() == [-150, -50, 50]
    assert numbers.report.fault_lines()[0].endswith("label: label much, expected a finite number")
    without = nfn.read_zoo(coloured, "digits", labels="none", progress=False)
    assert len(without) == 60
    assert not without.labels.any()
    with pytest.raises(ZooError, match="no column 'label'"):
        nfn.read_zoo("data/digits_transformers.zip", "digits", labels="class", progress=False)
    with pytest.raises(ZooError, match="faulty"):
        nfn.read_zoo(coloured, "digits", columns=nfn.Columns(label="colour"), progress=False)


def test_class_names_are_among_the_labels_of_a_split(classes):
    config = DataConfig("digits", task="classify")
    split = draw_split(classes, config, 1)
    renamed = replace(classes, classes=("2", "10", "blue"))
    assert split_record(renamed, split)["digest"] != split_record(classes, split)["digest"]
    assert torch.equal(labels_among(classes, ("red", "10", "2")), 2 - classes.labels)
    with pytest.raises(ZooError, match="of class 'red', expected one of '2', '10'"):
        labels_among(classes, ("2", "10"))
    with pytest.raises(UserError, match="at least two classes, got red"):
        nfn.fit(replace(classes, classes=("red",), labels=torch.zeros(59)), "statnn", task="classify", epochs=1)


def test_measured_numbers_are_no_classes(classes):
    numbers = replace(classes, classes=tuple(f"{0.2 + i / 100:.2f}" for i in range(59)), labels=torch.arange(59.0))
    with pytest.raises(UserError, match=r"expected classes, got 59 numbers from 0\.20 to 0\.78 in column 'col"):
        nfn.fit(numbers, "statnn", task="classify", epochs=1)
    config = RunConfig(1, NETWORK, DataConfig("digits", task="classify"), ModelConfig(), TrainingConfig())
    check_classes(config, replace(numbers, classes=tuple(map(str, range(59)))))
    check_classes(config, replace(numbers, classes=("0", "0.1", "0.25"), labels=torch.arange(59.0) % 3))


@pytest.fixture(scope="module")
def fitted(classes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "run"
    settings = {"ensemble": 2, "dropout": 0.1, "standardize": True, "epochs": 8, "lr": 0.03}
    return nfn.fit(
        classes, "statnn", task="classify", cls_mode="no", emb_mode="no", progress=False, out_dir=folder, **settings
    )


def test_a_classification(fitted, classes, coloured, capsys):
    folder, results = fitted.directory.path, fitted.results
    assert fitted.classes == classes.classes
    assert results["task"] == "classify"
    assert results["validation"].keys() == results["test"].keys() == {"loss", "accuracy"}
    assert results["test"]["accuracy"] > results["test_references"]["accuracy_of_the_most_common_class"]
    assert (folder / "confusion_matrix.png").is_file()
    best = max(row["validation_accuracy"] for row in fitted.history)
    assert results["validation"]["accuracy"] == best
    rows = list(csv.DictReader((folder / "test_predictions.csv").read_text().splitlines()))
    assert {row["label"] for row in rows} <= {"2", "10", "red"}
    assert sum(row["predicted"] == row["label"] for row in rows) / len(rows) == results["test"]["accuracy"]

    probabilities, predicted = fitted.predict_probabilities(classes), fitted.predict(classes)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(59, dtype=torch.float64))
    assert torch.equal(probabilities.argmax(1), predicted)
    assert torch.equal(fitted.model.predict(classes.weights(torch.arange(9))), predicted[:9])
    fitted.model.eval()
    mean = torch.stack([member(classes.weights(torch.arange(3))) for member in fitted.model.members]).mean(0)
    torch.testing.assert_close(mean.double().softmax(-1), probabilities[:3], atol=1e-6, rtol=0)
    assert fitted.evaluate(classes).accuracy == results["test"]["accuracy"]
    assert str(fitted.evaluate(classes)).startswith(f"accuracy {results['test']['accuracy']:.4f} [")
    others = replace(classes, classes=("red", "10", "2"), labels=2 - classes.labels)
    assert fitted.evaluate(others, "all").accuracy == fitted.evaluate(classes, "all").accuracy

    checkpoint = next(coloured.joinpath("digits").resolve().rglob(classes.names[0].rsplit("/", 1)[-1]))
    assert predict.main(["--run", str(folder), str(checkpoint)]) == 0
    assert capsys.readouterr().out.startswith(f"{classes.classes[predicted[0]]} {probabilities[0].max():.4f}  ")
    assert predict.main(["--run", str(folder), "--split", "test"]) == 0
    assert f"accuracy {results['test']['accuracy']:.4f} [" in capsys.readouterr().out


def test_runs_of_a_classification_in_a_table(fitted):
    run = read_run(fitted.directory.path)
    assert run.result is not None
    assert (run.result.task, run.result.score) == ("classify", fitted.results["test"]["accuracy"])
    assert math.isnan(run.result.r2)


def test_several_runs_at_once_and_resumed_end_as_alone(classes, tmp_path):
    config = ModelConfig("statnn", "no", "no", ensemble=2, dropout=0.2)
    zoo = replace(classes, rows=classes.rows.double(), labels=classes.labels.double())

    def new_run(name, seed=1):
        directory = RunDirectory(tmp_path / name)
        directory.path.mkdir()
        model = build_predictor(zoo.spec, config, seed, COLOURS.outputs).double()
        data = prepare(zoo, split_runs(zoo.runs, seed))
        return build_run(model, data, directory, seed, task=COLOURS, epochs=3, warmup_epochs=1)

    alone = new_run("alone")
    train([alone])
    together = [new_run("first"), new_run("second", 2)]
    train(together)
    interrupted, resumed = new_run("interrupted"), new_run("resumed")
    with pytest.raises(KeyboardInterrupt):
        stop_after(interrupted, 2)
    resumed.directory = interrupted.directory
    resumed.load_state()
    train([resumed])
    for run in (together[0], resumed):
        assert_equal(run, alone)


def test_any_number(coloured, capsys, tmp_path):
    flags = ["--dataset", "digits", "--data_path", str(coloured), "--task", "regress", "--device", "cpu"]
    network = ["--enc_mode", "statnn", "--cls_mode", "no", "--emb_mode", "no", "--epochs", "2", "--lr", "0.1"]
    assert main.main([*flags, *network, "--out_dir", str(tmp_path / "network")]) == 0
    assert "tau that ties leave: 0." in capsys.readouterr().out
    trees = ["--model", "extra_trees", "--features", "statistics", "--n_estimators", "5"]
    assert gbm.main([*flags, *trees, "--out_dir", str(tmp_path / "trees")]) == 0
    for name in ("network", "trees"):
        predictor = nfn.load_predictor(tmp_path / name)
        zoo = predictor.read_zoo()
        scores = predictor.evaluate(zoo)
        assert scores.mae == predictor.results["test"]["mae"]
        assert set(scores.labels.tolist()) <= {-150, -50, 50}
        assert scores.predicted.mean() == pytest.approx(-50, abs=40)
        with pytest.raises(RunError, match="expected a run of task classify"):
            predictor.predict_probabilities(zoo)


def test_trees_learn_classes(classes, tmp_path):
    settings = {"model": "extra_trees", "task": "classify", "features": "statistics", "n_estimators": 20}
    fitted = nfn.fit(classes, progress=False, out_dir=tmp_path / "run", **settings)
    results = fitted.results
    assert results["test"]["accuracy"] > results["test_references"]["accuracy_of_the_most_common_class"]
    probabilities = fitted.predict_probabilities(classes)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(59, dtype=torch.float64))
    (record,) = fitted.history
    assert record["validation_accuracy"] == results["validation"]["accuracy"]
    test = fitted.test_split(classes)
    indicators = torch.nn.functional.one_hot(classes.labels[test].long(), 3)
    error = (probabilities[test] - indicators).square().mean().sqrt().item()
    assert results["test"]["loss"] == pytest.approx(error)
    assert fitted.evaluate(classes).accuracy == results["test"]["accuracy"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut_off": 0.5, "task": "classify"}, "--cut_off 0.5: requires --task accuracy"),
        (
            {"model": "gbtree", "task": "classify"},
            "--task classify: not learned by --model gbtree, expected one of extra_trees",
        ),
        ({}, "--task accuracy: expected a zoo that is read with labels='accuracy', got labels='class'"),
    ],
)
def test_what_cannot_be_combined(classes, settings, message):
    with pytest.raises(UserError, match=message):
        nfn.fit(classes, **settings)


def test_a_run_without_a_task_is_one_of_accuracy():
    config = RunConfig(1, NETWORK, DataConfig("digits", "somewhere"), ModelConfig(), TrainingConfig())
    assert "task" not in config.key_values()["data"]
    assert replace(config, data=replace(config.data, task="regress")).key_values()["data"]["task"] == "regress"
    values = json.loads(json.dumps(config.to_json()))
    del values["data"]["task"]
    assert RunConfig.from_json(values) == config
    values["data"]["task"] = "guess"
    with pytest.raises(RunError, match="'task' is 'guess', expected one of accuracy, classify"):
        RunConfig.from_json(values)
