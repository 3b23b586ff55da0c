"""main.py as users run it: one run from end to end, killed and resumed runs, tracking, and its flags."""

import csv
import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from running import COSTS, call, run, run_program
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("quick_python")

SETTINGS = ("--dataset", "digits", "--epochs", 4, "--seed", 1, "--device", "cpu")


def rows(path: Path, without: Sequence[str] = ()) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if name not in without} for row in csv.DictReader(file)]


def outcome(run_directory: Path) -> tuple:
    """Everything that must be equal between two runs with one seed: all but costs and places."""
    return (
        rows(run_directory / "metrics.csv", without=COSTS),
        (run_directory / "best.safetensors").read_bytes(),
        json.loads((run_directory / "results.json").read_text()),
        rows(run_directory / "test_predictions.csv"),
        json.loads((run_directory / "split.json").read_text()),
    )


@pytest.fixture(scope="module")
def unbroken(quick_python, small_zoo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "unbroken"
    done = run("main.py", *SETTINGS, "--data_path", small_zoo, "--out_dir", path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sum(line.startswith("epoch ") for line in done.stdout.splitlines()) == 4
    assert "test tau" in done.stdout
    assert done.stdout.rstrip().endswith(f"run directory: {path}")
    return path


def test_a_run_directory_describes_the_run(unbroken, small):
    assert {file.name for file in unbroken.iterdir()} == {
        "best.safetensors", "config.json", "excluded.csv", "metrics.csv", "results.json", "split.json",
        "test_predictions.csv", "test_predictions.png", "learning_curves.png",
    }  # fmt: skip
    config = json.loads((unbroken / "config.json").read_text())
    assert config["seed"] == 1
    assert config["training"] == {
        "epochs": 4, "warmup_epochs": 10, "batch_size": 16, "optimizer": "adam", "lr": 1e-3, "wd": 0.0,
        "compile": False, "cuda_graphs": False, "amp": False, "early_stopping": None,
    }  # fmt: skip
    assert config["versions"]["torch"] == torch.__version__
    split = json.loads((unbroken / "split.json").read_text())
    sides = [set(split[side]) for side in ("train", "validation", "test")]
    assert [len(side) for side in sides] == [42, 9, 9]
    assert set.union(*sides) == set(small.names)
    predictions = rows(unbroken / "test_predictions.csv")
    assert {row["file"] for row in predictions} == sides[2]
    labels = dict(zip(small.names, small.labels.tolist(), strict=True))
    assert all(float(row["accuracy"]) == labels[row["file"]] for row in predictions)
    assert load_file(unbroken / "best.safetensors")["output.weight"].shape == (1, 30)


def test_two_runs_with_one_seed_are_identical(unbroken, small_zoo, tmp_path):
    call("main.py", *SETTINGS, "--data_path", small_zoo, "--out_dir", tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(unbroken)


BATCHES = 3  # of 16 among 42 networks

SIGNALLED_IN_BATCH = f"""
import signal, tqdm
from nfn_transformer import main
from nfn_transformer.cli.command_line import run_command
update, seen = tqdm.tqdm.update, []
def killing_update(bar, n=1):
    seen.append(n)
    if len(seen) == 2 * {BATCHES} + 2:  # the second batch of the third epoch
        signal.raise_signal(signal.{{signal}})
    return update(bar, n)
tqdm.tqdm.update = killing_update
signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a shell that ignores it
run_command(main.main)
"""

KILLED_AFTER_WRITING = """
import os, signal
from nfn_transformer import main
from nfn_transformer.cli.command_line import run_command
replace, seen = os.replace, []
def killing_replace(source, target):
    replace(source, target)
    seen.append(os.path.basename(target))
    if seen.count("{file}") == {times}:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killing_replace
run_command(main.main)
"""


@pytest.mark.parametrize(
    "program",
    [
        SIGNALLED_IN_BATCH.format(signal="SIGKILL"),
        KILLED_AFTER_WRITING.format(file="best.safetensors", times=1),
        KILLED_AFTER_WRITING.format(file="state.pt", times=4),
        KILLED_AFTER_WRITING.format(file="test_predictions.csv", times=1),
    ],
    ids=["in the middle of an epoch", "after the first weights", "after the last state", "in the final report"],
)
def test_a_killed_run_resumes_to_the_same_result(program, unbroken, small_zoo, tmp_path):
    killed = tmp_path / "killed"
    ended = run_program(program, *SETTINGS, "--data_path", small_zoo, "--out_dir", killed)
    assert ended.returncode == -signal.SIGKILL
    assert not (killed / "results.json").exists()
    finished = len(rows(killed / "metrics.csv")) if (killed / "metrics.csv").exists() else 0
    resumed = call("main.py", "--resume", killed)
    assert resumed.returncode == 0, resumed.stderr
    assert all(f"epoch {epoch}/4" not in resumed.stdout for epoch in range(1, finished + 1))
    assert outcome(killed) == outcome(unbroken)
    again = call("main.py", "--resume", killed)
    assert "this run is finished" in again.stdout


def interrupted(small_zoo, path: Path) -> str:
    """Interrupt a run in its third epoch; its stderr."""
    program = SIGNALLED_IN_BATCH.format(signal="SIGINT")
    ended = run_program(program, *SETTINGS, "--data_path", small_zoo, "--out_dir", path)
    assert ended.returncode == 130
    assert len(rows(path / "metrics.csv")) == 2
    return ended.stderr


def test_ctrl_c_leaves_a_usable_run(small_zoo, unbroken, tmp_path):
    path = tmp_path / "interrupted"
    assert f"go on by: python nfn_transformer/main.py --resume {path}" in interrupted(small_zoo, path)
    predicted = call("predict.py", "--run", path, small_zoo)
    assert predicted.returncode == 0, predicted.stderr
    assert len(predicted.stdout.splitlines()) == 60
    call("main.py", "--resume", path)
    assert outcome(path) == outcome(unbroken)


def test_a_run_goes_on_where_there_are_no_cuda_graphs(unbroken, small_zoo, tmp_path):
    path = tmp_path / "run"
    interrupted(small_zoo, path)
    config = json.loads((path / "config.json").read_text())
    config["training"]["cuda_graphs"] = True
    (path / "config.json").write_text(json.dumps(config))
    refused = call("main.py", "--resume", path, "--cuda_graphs", "True")
    assert refused.returncode == 2
    assert "--cuda_graphs True: the device is cpu" in refused.stderr
    resumed = call("main.py", "--resume", path, "--compile", "False")
    assert resumed.returncode == 0, resumed.stderr
    assert rows(path / "metrics.csv", COSTS) == rows(unbroken / "metrics.csv", COSTS)


FREE_OF_WANDB = """
import sys
from nfn_transformer import main
sys.exit(main.main(sys.argv[1:]) or "wandb" in sys.modules or "nfn_transformer.training.run" not in sys.modules)
"""


def test_wandb_logs_offline_and_is_not_imported_unasked(small_zoo, tmp_path):
    settings = (*SETTINGS[:2], "--epochs", 1, "--data_path", small_zoo, "--enc_mode", "no")
    logged = run(
        "main.py", *settings, "--wandb", "True", "--out_dir", tmp_path / "logged",
        WANDB_MODE="offline", WANDB_SILENT="true",
    )  # fmt: skip
    assert logged.returncode == 0, logged.stderr
    assert list((tmp_path / "logged").glob("wandb/offline-run-*/*.wandb"))
    assert run_program(FREE_OF_WANDB, *settings, "--wandb", "False", "--out_dir", tmp_path / "quiet").returncode == 0
