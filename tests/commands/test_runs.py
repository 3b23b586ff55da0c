"""Runs that exist: their list, and their comparison in a table, without training and without PyTorch."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from running import fail

from nfn_transformer import gbm, main, runs
from nfn_transformer.grids.recorded_runs import setting_text
from nfn_transformer.grids.results_table import corrected_interval
from nfn_transformer.training import trees
from nfn_transformer.trees.features import features_of_checkpoints

QUICK = ("--enc_mode", "no", "--cls_mode", "no", "--epochs", "1")


@pytest.fixture(scope="module")
def folder(small_zoo, tmp_path_factory) -> Path:
    """Runs of one network with two seeds and of another, of trees, and an unfinished one."""
    folder = tmp_path_factory.mktemp("folder") / "runs"
    data = ("--dataset", "digits", "--data_path", str(small_zoo))

    def train(command, name: str, *words: str) -> None:
        assert command.main([*data, *words, "--out_dir", str(folder / name)]) == 0

    train(main, "slow", *QUICK, "--seeds", "1,2")
    train(main, "fast/1", *QUICK, "--lr", "0.01", "--seed", "1")
    train(main, "fast/2", *QUICK, "--lr", "0.01", "--seed", "2")
    train(gbm, "trees", "--model", "extra_trees", "--features", "statistics", "--seed", "1")
    shutil.copytree(folder / "trees", folder / "begun")
    (folder / "begun/results.json").unlink()
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tau(path: Path) -> float:
    return json.loads((path / "results.json").read_text())["test"]["tau"]


def lines_of(capsys, *words) -> dict[str, str]:
    assert runs.main([str(word) for word in words]) == 0
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}


def test_the_list_tells_tau_time_and_what_differs(folder, capsys):
    lines = lines_of(capsys, folder)
    for name in ("slow/seed1", "slow/seed2", "fast/1", "fast/2", "trees"):
        assert f"{tau(folder / name):.4f} [" in lines[name]
        assert "of 9 networks" in lines[name]
    assert "seed 2" in lines["slow/seed2"]
    assert "seed" not in lines["slow/seed1"].partition("]")[2]
    assert "seed 1" in lines["where"]
    assert "lr 0.001" in lines["slow/seed1"]
    assert "lr 0.01" in lines["fast/1"]
    assert "epochs" not in lines["fast/1"]
    assert "unfinished, round 1" in lines["begun"]
    assert "6 runs in" in lines["6"]
    assert "1 of them unfinished" in lines["6"]


def test_the_list_tells_the_model_of_each_run(folder, small_zoo, capsys):
    lines = lines_of(capsys, folder)
    for name in ("slow/seed1", "fast/2"):
        assert lines[name].split()[1] == "no-no-mlp"
    for name in ("trees", "begun"):
        assert lines[name].split()[1] == "scikit-learn-extra_trees-statistics"
    assert not any(
        f" {word} " in line for line in lines.values() for word in ("transformer_nfn", "enc_mode", "library")
    )
    assert lines_of(capsys, folder / "trees")["trees"].split()[1] == "scikit-learn-extra_trees-statistics"


def test_the_time_of_trees_is_that_of_their_features_too(small_zoo, tmp_path, monkeypatch, capsys):
    def slowly(*arguments):
        time.sleep(1.5)
        return features_of_checkpoints(*arguments)

    monkeypatch.setattr(trees, "features_of_checkpoints", slowly)
    words = ["--model", "extra_trees", "--features", "statistics", "--n_estimators", "3", "--device", "cpu"]
    words += ["--dataset", "digits", "--data_path", str(small_zoo), "--out_dir", str(tmp_path / "run")]
    assert gbm.main(words) == 0
    capsys.readouterr()
    told = re.search(r" of 9 networks +(\d+) s$", lines_of(capsys, tmp_path / "run")["run"])
    assert told is not None
    assert int(told[1]) >= 3


def test_folds_that_are_unfinished_are_told_so(folder, tmp_path, capsys):
    run = Path(shutil.copytree(folder / "begun", tmp_path / "folds"))
    config = json.loads((run / "config.json").read_text())
    config["data"]["folds"] = 3
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics.csv").unlink()  # as only the directories of the folds have them
    assert "unfinished folds" in lines_of(capsys, run)["folds"]


def test_a_setting_without_text_is_shown():
    assert setting_text({"where": "", "channels": [5, 6], "lr": 0.1}, ["where", "channels"]) == "where '', channels 5,6"


def test_a_damaged_run_hides_no_other(folder, tmp_path, capsys):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "trees/results.json").write_text("{")
    lines = lines_of(capsys, copy)
    assert "trees/results.json: cannot be read" in lines["damaged:"]
    assert "fast/1" in lines


def test_compared_runs_are_a_table_with_paired_differences(folder, tmp_path, capsys):
    out = tmp_path / "compared"
    words = ["--compare", str(folder / "slow"), str(folder / "fast"), "--out_dir", str(out)]
    assert runs.main(words) == 0
    assert {path.name for path in out.iterdir()} == {"table.md", "table.tex", "table.csv", "cells.csv", "figure.png"}
    names = ("no-no-mlp, lr 0.001", "no-no-mlp, lr 0.01")
    slow = [tau(folder / f"slow/seed{seed}") for seed in (1, 2)]
    fast = [tau(folder / f"fast/{seed}") for seed in (1, 2)]
    with open(out / "table.csv", newline="") as file:
        table = {row["row"]: row for row in csv.DictReader(file)}
    assert list(table) == list(names)
    for name, taus in zip(names, (slow, fast), strict=True):
        assert float(table[name]["tau_mean"]) == pytest.approx(np.mean(taus))
        assert float(table[name]["tau_standard_error"]) == pytest.approx(np.std(taus, ddof=1) / math.sqrt(2))
    differences = np.array(fast) - np.array(slow)
    low, high, _ = corrected_interval(differences, 9 / 42)
    text = (out / "table.md").read_text()
    assert f"| digits | {names[1]} minus {names[0]} | {differences.mean():+.3f} | [{low:+.3f}, {high:+.3f}] |" in text
    (costs,) = (line for line in text.split("## Costs")[1].splitlines() if line.startswith(f"| {names[0]}"))
    assert all(float(seconds) > 0 for seconds in costs.split("|")[3].split(" to "))
    assert "no paired difference" not in text
    assert f"--compare {folder}/slow {folder}/fast" in text
    assert text in capsys.readouterr().out


def test_runs_are_paired_where_some_tested_networks_were_seen_in_training(folder, tmp_path, capsys):
    copies = [Path(shutil.copytree(folder / name, tmp_path / name[:4])) for name in ("slow/seed1", "fast/1")]
    for copy in copies:
        head, *rows = (copy / "test_predictions.csv").read_text().splitlines()
        rows = [f"{row},{'train' if number == 0 else ''}" for number, row in enumerate(rows)]
        (copy / "test_predictions.csv").write_text("\n".join([f"{head},side", *rows]) + "\n")
    assert runs.main(["--compare", *map(str, copies)]) == 0
    text = capsys.readouterr().out
    assert "Paired comparisons" in text
    assert "no paired difference" not in text


def test_runs_that_tested_different_networks_are_not_paired(folder, tmp_path, capsys):
    other = Path(shutil.copytree(folder / "fast/1", tmp_path / "other"))
    predictions = (other / "test_predictions.csv").read_text().splitlines()
    (other / "test_predictions.csv").write_text("\n".join(predictions[:-1]) + "\n")
    assert runs.main(["--compare", str(folder / "slow/seed1"), str(other)]) == 0
    text = capsys.readouterr().out
    assert "tested different networks: no paired difference." in text
    assert "Paired comparisons" not in text
    assert runs.main(["--compare", str(folder / "slow/seed1"), str(folder / "fast/2")]) == 0
    text = capsys.readouterr().out
    assert "have no seed in common: no paired difference." in text
    assert "Paired comparisons" not in text


def test_what_is_unfinished_or_there_twice_is_told(folder, tmp_path, capsys):
    again = Path(shutil.copytree(folder / "fast/1", tmp_path / "again"))
    paths = (folder / "fast/1", again, folder / "begun", folder / "trees")
    assert runs.main(["--compare", *map(str, paths)]) == 0
    text = capsys.readouterr().out
    assert f"{again} is left out: {folder}/fast/1 has the same configuration, seed and data." in text
    assert f"- {folder}/begun is not finished" in text
    assert "scikit-learn-extra_trees-statistics minus no-no-mlp" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: expected a run directory, or a folder of runs, got no folder"),
        (["--compare", "."], "--compare .: expected finished runs, got none"),
        ([".", "--compare", "."], "--compare cannot be combined with a folder to list, got ."),
        ([".", "--out_dir", "table"], "--out_dir table: requires --compare"),
    ],
)
def test_bad_input_is_named(words, message, capsys):
    assert message in fail(runs.main, capsys, *words)


PROGRAM = """
import sys
from nfn_transformer import runs
runs.main(sys.argv[1:2])
print(sorted(set(sys.modules) & set(sys.argv[2:])))
"""


def test_listing_imports_no_large_library(folder):
    words = [sys.executable, "-c", PROGRAM, str(folder), "torch", "numpy", "scipy", "matplotlib"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
