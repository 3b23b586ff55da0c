"""xgb.py and gbm.py as users run them, on the bundled zoo's best networks: fast, and the last round is not the best."""

import json
import math
import shutil
import signal
from dataclasses import asdict
from pathlib import Path

import lightgbm
import pytest
import tqdm
import xgboost
from running import COSTS, call, fail, run_program
from scipy.stats import kendalltau
from tree_runs import COMMANDS, CONFIGS, FEATURES, MODELS, PROGRAMS, SETTINGS, TREES, outcome, read, rows

from nfn_transformer import gbm, main, predict, xgb
from nfn_transformer.trees.features import TREE_FEATURES

pytestmark = pytest.mark.usefixtures("quick_python")


@pytest.fixture(scope="module")
def runs(bundled_zoo, tmp_path_factory):
    """A run of each model, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("trees"), {}

    def of(model: str) -> Path:
        if model not in made:
            path = folder / model
            done = call(PROGRAMS[model], *words(model, bundled_zoo, path))
            assert (done.returncode, done.stderr) == (0, "")
            made[model] = path, done.stdout
        return made[model][0]

    of.printed = lambda model: (of(model), made[model][1])[1]
    return of


def words(model, bundled_zoo, path) -> list[str]:
    flags = ("--data_path", str(bundled_zoo), "--model", model, "--features", FEATURES[model], "--out_dir", str(path))
    return [*map(str, SETTINGS), *flags]


@MODELS
def test_a_run_directory_describes_the_run(model, runs):
    path, trees = runs(model), TREES[PROGRAMS[model]]
    assert {file.name for file in path.iterdir()} == {
        "config.json", "excluded.csv", "metrics.csv", "results.json", "split.json", "test_predictions.csv",
        "test_predictions.png", "learning_curves.png", trees, f"{trees}.sha256",
    }  # fmt: skip
    config = read(path / "config.json")
    assert (config["model"], config["seed"], config["device"]) == (model, 1, "cpu")
    assert config["predictor"] == asdict(CONFIGS[model])
    rounds = (
        {"rounds": 50, "early_stopping": None} if trees.endswith("json") else {"rounds": 1000, "early_stopping": 50}
    )
    assert config["training"] == rounds
    assert config["versions"]["xgboost"] == xgboost.__version__
    assert config["versions"]["lightgbm"] == lightgbm.__version__
    printed = runs.printed(model)
    config = CONFIGS[model]
    described = f"{config.library}-{config.model} on {TREE_FEATURES[config.features].help}"
    assert f"model: {described}; device cpu" in printed
    assert "split by seed 1: 196 train, 42 validation, 42 test" in printed
    assert printed.rstrip().endswith(f"run directory: {path}")


@MODELS
def test_rounds_results_and_predictions_agree(model, runs):
    path = runs(model)
    metrics, results = rows(path / "metrics.csv"), read(path / "results.json")
    losses = [float(row["validation_loss"]) for row in metrics]
    best = losses.index(min(losses)) + 1
    assert [row["round"] for row in metrics] == [str(number) for number in range(1, len(metrics) + 1)]
    assert len(metrics) == (50 if PROGRAMS[model] == "xgb.py" else best + 50)
    assert 1 < best < len(metrics)
    assert (results["status"], results["best_round"], results["rounds"]) == ("complete", best, len(metrics))
    assert results["trees"] == best
    chosen = {name: float(metrics[best - 1][f"validation_{name}"]) for name in ("loss", "tau", "r2", "mae")}
    assert results["validation"] == chosen
    table = rows(path / "test_predictions.csv")
    assert [row["file"] for row in table] == read(path / "split.json")["test"]
    predicted, labels = ([float(row[name]) for row in table] for name in ("predicted", "accuracy"))
    assert all(
        label == pytest.approx(int(row["file"][:-3].rsplit("_")[-1]) / 1e4, abs=1e-4)
        for label, row in zip(labels, table, strict=True)
    )
    test, tau = results["test"], kendalltau(predicted, labels).statistic
    assert test["tau"] == pytest.approx(tau, abs=1e-12)
    errors = [p - q for p, q in zip(predicted, labels, strict=True)]
    assert test["loss"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / 42))
    assert test["mae"] == pytest.approx(sum(map(abs, errors)) / 42)
    interval = results["test_tau_interval"]
    assert interval["low"] < tau < interval["high"]
    printed = runs.printed(model)
    total = 50 if PROGRAMS[model] == "xgb.py" else 1000
    assert f"best round {best} of {len(metrics)}: validation tau {chosen['tau']:.4f}" in printed
    assert f"test tau {tau:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]" in printed
    assert f"round {1:>{len(str(total))}}/{total}  train loss {float(metrics[0]['train_loss']):.4f}" in printed


def test_the_model_asked_for_is_trained(runs):
    predictions = {}
    for model in PROGRAMS:
        content = (runs(model) / TREES[PROGRAMS[model]]).read_text()
        if PROGRAMS[model] == "xgb.py":
            assert json.loads(content)["learner"]["gradient_booster"]["name"] == model
        else:
            assert f"[boosting: {model}]" in content
        predictions[model] = tuple(row["predicted"] for row in rows(runs(model) / "test_predictions.csv"))
    assert len(set(predictions.values())) == 4


def test_defaults(tmp_path):
    for command, default in ((xgb, "gbtree"), (gbm, "rf")):
        flags = command.build_parser().parse_args([])
        assert (flags.model, flags.dataset, flags.seed, flags.cut_off, flags.ckpt_epoch) == (
            default,
            None,
            3,
            0,
            "75",
        )


def test_the_split_is_that_of_main(runs, bundled_zoo, tmp_path):
    flags = [*map(str, SETTINGS), "--data_path", str(bundled_zoo), "--epochs", "1", "--enc_mode", "no"]
    assert main.main([*flags, "--out_dir", str(tmp_path / "network")]) == 0
    expected = read(tmp_path / "network/split.json")
    assert read(runs("gbtree") / "split.json") == read(runs("rf") / "split.json") == expected


@pytest.mark.parametrize("model", ["gbtree", "rf"])
def test_two_runs_with_one_seed_are_identical(model, runs, bundled_zoo, tmp_path):
    assert COMMANDS[model].main(words(model, bundled_zoo, tmp_path / "again")) == 0
    assert outcome(tmp_path / "again", model) == outcome(runs(model), model)


KILLED_IN_ROUND = """
import os, signal, tqdm
from nfn_transformer import {module}
from nfn_transformer.cli.command_line import run_command
update, seen = tqdm.tqdm.update, []
def killing_update(bar, n=1):
    seen.append(n)
    if bar.total in (50, 1000) and len(seen) > 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(bar, n)
tqdm.tqdm.update = killing_update
run_command({module}.main)
"""

KILLED_AFTER_WRITING = """
import os, signal
from nfn_transformer import {module}
from nfn_transformer.cli.command_line import run_command
replace = os.replace
def killing_replace(source, target):
    replace(source, target)
    if os.path.basename(target) == "{file}":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killing_replace
run_command({module}.main)
"""


@pytest.mark.parametrize(
    ("model", "program", "left"),
    [
        ("gbtree", KILLED_IN_ROUND.format(module="xgb"), set()),
        ("rf", KILLED_AFTER_WRITING.format(module="gbm", file="test_predictions.csv"), {"best.lightgbm.txt"}),
    ],
    ids=["XGBoost in the middle of the rounds", "LightGBM in the final report"],
)
def test_a_killed_run_resumes_to_the_same_result(model, program, left, runs, bundled_zoo, tmp_path, capsys):
    killed = tmp_path / "killed"
    assert run_program(program, *words(model, bundled_zoo, killed)).returncode == -signal.SIGKILL
    assert {file.name for file in killed.iterdir()} & {"results.json", *TREES.values()} == left
    command = COMMANDS[model]
    assert command.main(["--resume", str(killed)]) == 0
    assert outcome(killed, model) == outcome(runs(model), model)
    assert command.main(["--resume", str(killed)]) == 0
    assert "this run is finished" in capsys.readouterr().out


@pytest.fixture
def _ctrl_c_is_heard():
    """Also where a shell has started the tests in its background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_heard")
@pytest.mark.parametrize("model", ["gbtree", "gbdt"])
def test_ctrl_c_leaves_a_usable_run(model, runs, bundled_zoo, tmp_path, monkeypatch, capsys):
    path, command, update = tmp_path / "interrupted", COMMANDS[model], tqdm.tqdm.update

    def interrupting_update(bar, n=1):
        if bar.total in (50, 1000) and len(seen) == 10:
            signal.raise_signal(signal.SIGINT)
        seen.append(n)
        return update(bar, n)

    seen = []
    monkeypatch.setattr(tqdm.tqdm, "update", interrupting_update)
    assert command.main(words(model, bundled_zoo, path)) == 130
    monkeypatch.undo()
    hint = f"interrupted; go on by: python nfn_transformer/{PROGRAMS[model]} --resume {path}"
    assert hint in capsys.readouterr().err
    whole = rows(runs(model) / "metrics.csv", without=COSTS)
    assert rows(path / "metrics.csv", without=COSTS) == whole[:11]
    assert "no such file; a run writes it after its last round" in fail(
        predict.main, capsys, "--run", path, bundled_zoo
    )
    assert command.main(["--resume", str(path)]) == 0
    assert outcome(path, model) == outcome(runs(model), model)


@pytest.mark.parametrize("model", ["dart", "rf"])
def test_predict_gives_what_the_run_wrote(model, runs, bundled_zoo, tmp_path, capsys):
    path = runs(model)
    results, expected = read(path / "results.json"), rows(path / "test_predictions.csv")
    assert predict.main(["--run", str(path), "--dataset", "digits", "--data_path", str(bundled_zoo)]) == 0
    printed, interval = capsys.readouterr().out, results["test_tau_interval"]
    assert "the run's own test split: 42 networks" in printed
    assert f"tau {results['test']['tau']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]" in printed
    shutil.unpack_archive(bundled_zoo, tmp_path)
    (folder,) = tmp_path.glob("**/metadata/..")
    checkpoints = [folder / "digits" / row["file"] for row in expected]
    assert predict.main(["--run", str(path), *map(str, checkpoints), "--out", str(tmp_path / "out.csv")]) == 0
    found = rows(tmp_path / "out.csv")
    assert [Path(row["file"]).name for row in found] == [row["file"] for row in expected]
    assert [row["predicted"] for row in found] == [row["predicted"] for row in expected]


@pytest.mark.parametrize("model", ["gbtree", "gbdt"])
def test_damaged_trees_are_named(model, runs, bundled_zoo, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(runs(model), path)
    trees = path / TREES[PROGRAMS[model]]
    whole = trees.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:-20]):
        trees.write_bytes(damaged)
        errors = fail(predict.main, capsys, "--run", path, bundled_zoo)
        assert f"error: {trees}: holds no trees: " in errors
    trees.unlink()
    errors = fail(predict.main, capsys, "--run", path, bundled_zoo)
    assert f"error: {trees}: no such file; a run writes it after its last round" in errors
