"""main.py --seeds: several runs in one process, each as it is alone."""

import csv
import json
from pathlib import Path

import pytest
from running import call, fail
from safetensors.torch import load_file

from nfn_transformer import gbm, main
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.training.tracking import ScreenTracker

SETTINGS = ("--dataset", "digits", "--epochs", 4, "--device", "cpu")


def assert_same_run(found: Path, expected: Path) -> None:
    """Equal split; numbers equal but for the rounding of single precision over a few epochs."""
    assert json.loads((found / "split.json").read_text()) == json.loads((expected / "split.json").read_text())
    a, b = (json.loads((path / "config.json").read_text()) for path in (found, expected))
    assert {**a, "command": ""} == {**b, "command": ""}
    with open(found / "metrics.csv") as first, open(expected / "metrics.csv") as second:
        for row, other in zip(csv.DictReader(first), csv.DictReader(second), strict=True):
            for name in ("epoch", "train_loss", "validation_loss", "lr"):
                assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4)
    weights, others = load_file(found / "best.safetensors"), load_file(expected / "best.safetensors")
    assert weights.keys() == others.keys()
    a, b = (json.loads((path / "results.json").read_text()) for path in (found, expected))
    assert (a["status"], a["epochs"], a["networks"]) == (b["status"], b["epochs"], b["networks"])
    if a["best_epoch"] == b["best_epoch"]:
        assert max(relative_error(weights[name], others[name]) for name in weights) < 1e-2
        assert a["test"]["loss"] == pytest.approx(b["test"]["loss"], rel=1e-4)


@pytest.fixture(scope="module")
def alone(small_zoo, tmp_path_factory) -> dict[int, Path]:
    """The runs of two seeds, one after another."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in (1, 2):
        done = call("main.py", *SETTINGS, "--data_path", small_zoo, "--seed", seed, "--out_dir", folder / f"seed{seed}")
        assert done.returncode == 0, done.stderr
    return {seed: folder / f"seed{seed}" for seed in (1, 2)}


def test_each_seed_is_what_it_is_alone(alone, small_zoo, tmp_path):
    done = call("main.py", *SETTINGS, "--data_path", small_zoo, "--seeds", "1,2", "--out_dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for seed in (1, 2):
        assert f"split by seed {seed}: 42 train, 9 validation, 9 test" in lines
        assert sum(line.startswith(f"seed {seed}  epoch ") for line in lines) == 4
        assert lines.count(f"run directory: {tmp_path}/seed{seed}") == 2
        assert_same_run(tmp_path / f"seed{seed}", alone[seed])


def test_interrupted_seeds_go_on_together_or_each_by_itself(alone, small_zoo, tmp_path, monkeypatch):
    words = (*SETTINGS, "--data_path", small_zoo, "--seeds", "1,2", "--out_dir", tmp_path)
    log = ScreenTracker.log

    def interrupting_log(self, record):
        log(self, record)
        if (self.prefix, record.number) == ("seed 2  ", 2):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ScreenTracker, "log", interrupting_log)
        ended = call("main.py", *words)
    places = [tmp_path / "seed1", tmp_path / "seed2"]
    assert ended.returncode == 130
    assert f"interrupted; go on by: python nfn_transformer/main.py --resume {places[0]} {places[1]}" in ended.stderr
    again = call("main.py", "--resume", *places)
    assert (again.returncode, again.stderr) == (0, "")
    for seed in (1, 2):
        assert_same_run(tmp_path / f"seed{seed}", alone[seed])
    (places[1] / "results.json").rename(places[1] / "kept.json")
    (places[1] / "state.pt").unlink(missing_ok=True)
    last = call("main.py", "--resume", *places)
    assert last.returncode == 0
    assert last.stdout.count("this run is finished") == 1
    assert last.stdout.count("test tau") == 2


def test_seeds_that_contradict_something_are_refused(alone, small_zoo, tmp_path, capsys):
    words = (*SETTINGS, "--data_path", small_zoo, "--out_dir", tmp_path / "none")
    assert "--seed and --seeds contradict each other" in fail(main.main, capsys, *words, "--seed", 1, "--seeds", "1,2")
    assert "names a seed twice: 1,1" in fail(main.main, capsys, *words, "--seeds", "1,1")
    assert "must be at least 0" in fail(main.main, capsys, *words, "--seeds", "1,-2")
    assert "leave out --seeds" in fail(main.main, capsys, "--resume", alone[1], "--seeds", "1,2")
    assert not (tmp_path / "none").exists()


def test_runs_of_different_configurations_do_not_go_on_together(small_zoo, tmp_path, capsys):
    for name, epochs in (("short", 2), ("long", 3)):
        words = ("--dataset", "digits", "--data_path", small_zoo, "--device", "cpu", "--epochs", epochs)
        assert call("main.py", *words, "--out_dir", tmp_path / name).returncode == 0
        (tmp_path / name / "results.json").unlink()
    errors = fail(main.main, capsys, "--resume", tmp_path / "short", tmp_path / "long")
    assert f"{tmp_path}/long: has another configuration than {tmp_path}/short; resume each by itself" in errors


def test_tree_models_know_no_seeds(capsys):
    assert "unrecognized arguments: --seeds 1,2; did you mean --seed?" in fail(gbm.main, capsys, "--seeds", "1,2")
