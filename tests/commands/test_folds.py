"""--folds: every network is predicted by a model that never saw its run, and --fit_all keeps a predictor of all."""

import csv
import json
import re
import shutil
from functools import partial
from statistics import median

import numpy as np
import pytest
import torch
from running import fail

from nfn_transformer import gbm, main, predict
from nfn_transformer.cli.command_line import EXIT_INTERRUPTED
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.training import number_tasks, report
from nfn_transformer.training.metrics import kendall_tau, tau_interval
from nfn_transformer.training.tracking import ScreenTracker

SMALL = ("--enc_mode", "statnn", "--epochs", "2", "--batch_size", "4", "--device", "cpu", "--lr", "0.01")


@pytest.fixture(scope="module")
def user_zoo(tmp_path_factory):
    """14 MLPs with made-up scores, two of them the same network; 4 more without scores."""
    folder = tmp_path_factory.mktemp("user")
    generator = torch.Generator().manual_seed(1)
    (folder / "nets").mkdir()
    (folder / "new").mkdir()
    rows = []
    for net in range(18):
        scale = 0.1 + torch.rand((), generator=generator).item()
        shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}
        state = {key: scale * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        torch.save(state, folder / ("nets" if net < 14 else "new") / f"net{net:02d}.pt")
        rows.append([f"net{net:02d}.pt", round(scale / 1.1, 4), 10 * scale])
    shutil.copy(folder / "nets/net00.pt", folder / "nets/net13.pt")
    with open(folder / "scores.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "accuracy", "loss"], *rows[:14]])
    return folder


@pytest.fixture(autouse=True)
def _few_draws_and_no_pictures(monkeypatch):
    """Intervals and pictures of each fold take longer than its training."""
    monkeypatch.setattr(number_tasks, "tau_interval", partial(tau_interval, draws=20))
    for module in (number_tasks, report):
        monkeypatch.setattr(module, "save_png", lambda *_, **__: None)


@pytest.fixture
def train(user_zoo, tmp_path):
    def run(*argv, command=main, name="run", small=SMALL):
        zoo = ("--zoo", user_zoo / "nets", "--table", user_zoo / "scores.csv")
        words = (*zoo, *small, "--out_dir", tmp_path / name, *argv)
        return command.main([str(word) for word in words]), tmp_path / name

    return run


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_network_is_predicted_by_a_model_that_never_saw_its_run(train, user_zoo, tmp_path, capsys):
    status, run = train("--folds", "3", "--fit_all")
    shown = capsys.readouterr().out
    assert status == 0
    assert "files by 'path', labels by 'accuracy' (guessed" in shown
    rows = table(run / "out_of_fold_predictions.csv")
    assert sorted(row["file"] for row in rows) == [f"net{net:02d}.pt" for net in range(14)]
    folds = {row["file"]: int(row["fold"]) for row in rows}
    assert folds["net00.pt"] == folds["net13.pt"]  # equal weights
    assert json.loads((run / "split.json").read_text())["folds"][0] == sorted(n for n, f in folds.items() if f == 1)
    best = []
    for fold in range(1, 4):
        record = json.loads((run / f"fold{fold}/split.json").read_text())
        assert {name for name, of in folds.items() if of == fold} == set(record["test"])
        assert not set(record["test"]) & {*record["train"], *record["validation"]}
        alone = {row["file"]: float(row["predicted"]) for row in table(run / f"fold{fold}/test_predictions.csv")}
        assert alone == pytest.approx({row["file"]: float(row["predicted"]) for row in rows if row["file"] in alone})
        best.append(json.loads((run / f"fold{fold}/results.json").read_text())["best_epoch"])
        losses = [float(row["validation_loss"]) for row in table(run / f"fold{fold}/metrics.csv")]
        assert best[-1] == 1 + losses.index(min(losses))
    numbers = [torch.tensor([float(row[name]) for row in rows]) for name in ("predicted", "accuracy")]
    results = json.loads((run / "results.json").read_text())
    tau, interval = kendall_tau(*numbers), results["test_tau_interval"]
    assert results["test"]["tau"] == pytest.approx(tau)
    measured = rf"out of fold tau {tau:.4f} \[{interval['low']:.4f}, .*\(14 networks; warning: fewer than 30"
    assert re.search(measured, shown)
    assert re.search(r"tau of each fold: (-?\d\.\d+(, |; )){3}mean ", shown)
    assert shown.count("14 of 14 checkpoints can be used") == 1
    last = len(table(run / "all/metrics.csv"))
    assert last == results["best_epoch"] == max(1, int(median(best) + 0.5))
    new = [str(path) for path in sorted((user_zoo / "new").iterdir())]
    for place in (run, run / "all"):
        assert predict.main(["--run", str(place), *new, "--out", str(tmp_path / f"{place.name}.csv")]) == 0
    assert table(tmp_path / "run.csv") == table(tmp_path / "all.csv")
    with pytest.raises(RunError, match="trained on all networks, and has no test split"):
        predict.main(["--run", str(run), "--device", "cpu", "--split", "auto"])


def test_interrupted_folds_go_on_to_the_same_predictions(train, tmp_path, monkeypatch, capsys):
    _, unbroken = train("--folds", "3", name="unbroken")

    def stop(self, record):
        if record.number == 1 and self.prefix == "fold 3  ":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ScreenTracker, "log", stop)
        status, run = train("--folds", "3")
    assert status == EXIT_INTERRUPTED
    assert f"--resume {run}\n" in capsys.readouterr().err
    shutil.rmtree(run / "fold2")  # as if it had not begun
    images, classes = np.zeros((4, 4, 4), np.uint8), np.arange(4)
    np.savez(
        tmp_path / "images.npz", test_images=images, test_labels=classes, train_images=images, train_labels=classes
    )
    with pytest.raises(UserError, match="images of 1 x 4 x 4 pixels in 4 classes, which some networks"):
        main.main(["--resume", str(run), "--ceiling_images", str(tmp_path / "images.npz")])
    assert not (run / "fold2").exists(), "images are checked before the training"
    assert main.main(["--resume", str(run), "--fit_all"]) == 0
    resumed, expected = (
        {row["file"]: float(row["predicted"]) for row in table(path / "out_of_fold_predictions.csv")}
        for path in (run, unbroken)
    )
    assert resumed == pytest.approx(expected, abs=1e-5)  # folds that catch up do not train at once with the others
    assert (run / "all/best.safetensors").is_file()
    config = json.loads((unbroken / "config.json").read_text())
    (unbroken / "config.json").write_text(json.dumps({**config, "ceiling_images": "/gone", "ceiling_skip": 3}))
    assert main.main(["--resume", str(unbroken)]) == 0
    assert "this run is finished" in capsys.readouterr().out
    with pytest.raises(RunError, match="has predictors of its folds alone"):
        predict.main(["--run", str(unbroken), str(run)])


def test_trees_and_other_labels(train):
    trees = ("--model", "extra_trees", "--features", "statistics", "--n_estimators", "10")
    flags = ("--folds", "3", "--fit_all", "--task", "regress", "--label_column", "loss")
    status, run = train(*flags, command=gbm, small=trees)
    results = json.loads((run / "results.json").read_text())
    assert (status, results["task"], len(results["best_rounds"])) == (0, "regress", 3)
    assert (run / "all/best.trees.safetensors").is_file()
    status, run = train(*flags, name="network")
    rows = table(run / "out_of_fold_predictions.csv")
    squared = [(float(row["predicted"]) - float(row["label"])) ** 2 for row in rows]
    labels = torch.tensor([float(row["label"]) for row in rows], dtype=torch.float64)
    results = json.loads((run / "results.json").read_text())
    assert status == 0
    assert results["test"]["r2"] == pytest.approx(1 - sum(squared) / (labels - labels.mean()).square().sum().item())


def test_calibration_to_a_few_known_networks(train, user_zoo, tmp_path, capsys):
    _, run = train("--epochs", "1", "--label_column", "accuracy")
    new = user_zoo / "new"
    labels = {f"net{net}.pt": 0.1 * (net - 13) for net in range(14, 18)}
    few = "".join(f"{k},{v}\n" for k, v in list(labels.items())[:2])
    (tmp_path / "few.csv").write_text(f"path,test_accuracy\n{few}")  # not the run's column
    (tmp_path / "new.csv").write_text("path,accuracy\n" + "".join(f"{k},{v}\n" for k, v in labels.items()))
    capsys.readouterr()
    assert predict.main(["--run", str(run), str(new)]) == 0
    plain = capsys.readouterr()
    assert "rank them, but are not calibrated" in plain.err
    calibrate = ("--calibrate", str(tmp_path / "few.csv"))
    assert predict.main(["--run", str(run), str(new), *calibrate]) == 0
    shown = capsys.readouterr()
    assert "calibrated to 2 known networks: 1 x logit" in shown.err
    numbers = [[float(line.split()[0]) for line in each.out.splitlines()] for each in (plain, shown)]
    logits = torch.tensor(numbers, dtype=torch.float64).logit()
    shift = torch.tensor([0.1, 0.2]).logit().mean() - logits[0, :2].mean()
    assert torch.allclose(logits[1] - logits[0], shift.double().expand(4), atol=2e-3)
    argv = ["--run", str(run), "--zoo", str(new), "--table", str(tmp_path / "new.csv")]
    assert predict.main([*argv, *calibrate]) == 0
    assert "all of its checkpoints but 2 that it is calibrated to: 2 networks" in capsys.readouterr().out
    (tmp_path / "few.csv").write_text(f"path,accuracy\n{new}/net14.pt,0.1\n{user_zoo}/nets/net03.pt,0.9\n")
    assert predict.main([*argv, *calibrate]) == 0
    shown = capsys.readouterr()
    assert "all of its checkpoints but 1 that it is calibrated to: 3 networks" in shown.out
    assert "calibrated to 2 known networks" in shown.err
    all_known = ("--calibrate", tmp_path / "new.csv")
    assert "expected networks beside those in it, got all 4 of the zoo" in fail(predict.main, capsys, *argv, *all_known)


@pytest.fixture(scope="module")
def calibrated(user_zoo, tmp_path_factory):
    """A run on the user's networks, and the folder of those that it does not know."""
    run = tmp_path_factory.mktemp("calibrated") / "run"
    zoo = ("--zoo", user_zoo / "nets", "--table", user_zoo / "scores.csv")
    words = (*zoo, *SMALL, "--label_column", "accuracy", "--out_dir", run)
    assert main.main([str(word) for word in words]) == 0
    return run, user_zoo / "new"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("path,accuracy\n", "expected a header and 1 to "),
        ("path,accuracy\nnone.pt,0.1\n", "no column names the 4 checkpoints, the first of which is "),
        ("path,accuracy\nnet14.pt,0.1\nnone.pt,0.1\n", "'none.pt': no such network"),
        ("path,accuracy\nnet14.pt,high\n", "label high, expected a number in [0, 1]"),
        ("path,one,two\nnet14.pt,0.1,0.2\n", "no column has a plain name of an accuracy: --label_column names one"),
    ],
)
def test_faults_of_a_calibrations_table_name_its_flag(text, problem, calibrated, tmp_path, capsys):
    few, (run, new) = tmp_path / "few.csv", calibrated
    if text is not None:
        few.write_text(text)
    errors = fail(predict.main, capsys, "--run", run, new, "--calibrate", few).splitlines()
    assert errors[-1].startswith(f"error: --calibrate {few}: ")
    assert problem in errors[-1]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("--fit_all",), "--fit_all True: requires --folds"),
        (("--folds", "3", "--seeds", "1,2"), "--seeds 1,2: cannot be combined with --folds"),
        (("--folds", "3", "--test_where", "lr=1"), "--test_where lr=1: cannot be combined with --folds"),
        (("--split", "x", "--test_where", "lr=1"), "--test_where lr=1: cannot be combined with --split"),
        (("--test_where", "lr"), "--test_where 'lr': expected COLUMN=VALUE"),
        (("--folds", "20"), "--folds 20: expected networks of at least 20 runs, got 14 of 13"),
    ],
)
def test_folds_that_cannot_be_drawn(argv, problem, user_zoo, tmp_path, capsys):
    zoo = ("--zoo", user_zoo / "nets", "--table", user_zoo / "scores.csv")
    assert problem in fail(main.main, capsys, *zoo, *SMALL, "--out_dir", tmp_path / "run", *argv)
    assert not (tmp_path / "run").exists()
