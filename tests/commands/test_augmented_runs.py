"""Runs with --augment: recorded, split as a run without, resumed to the same result, and older runs still read."""

import json
import shutil
import signal

import pytest
from running import fail, run_program

from nfn_transformer import main, predict

pytestmark = pytest.mark.usefixtures("quick_python")

SIDES = ("train", "validation", "test")
FLAGS = ("--dataset", "digits", "--seed", "1", "--device", "cpu", "--epochs", "1")
AUGMENTED = ("--augment", "True", "--augment_factor", "3", "--augment_scale", "0.5")


def train(path, zoo, *flags):
    assert main.main([*FLAGS, "--data_path", str(zoo), "--out_dir", str(path), *flags]) == 0
    return path


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def augmented(small_zoo, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "augmented", small_zoo, *AUGMENTED)


@pytest.fixture(scope="module")
def plain(small_zoo, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "plain", small_zoo)


def test_a_run_with_copies_says_so_and_splits_as_one_without(augmented, plain, small, capsys):
    data = read(augmented / "config.json")["data"]
    assert {name: data[name] for name in data if name.startswith("augment")} == {
        "augment": True, "augment_factor": 3, "augment_scale": 0.5,
    }  # fmt: skip
    assert read(plain / "config.json")["data"]["augment"] is False
    split = read(augmented / "split.json")
    assert split == read(plain / "split.json")
    assert {name for side in SIDES for name in split[side]} == set(small.names)
    for run, factor in ((plain, 1), (augmented, 3)):
        assert read(run / "results.json")["networks"] == {
            "train": 42 * factor,
            "validation": 9 * factor,
            "test": 9 * factor,
        }
    table = (augmented / "test_predictions.csv").read_text().splitlines()[1:]
    names = [line.split(",")[0] for line in table]
    assert names[:9] == split["test"]
    assert names[9:] == [f"{name} (copy {copy})" for copy in (1, 2) for name in split["test"]]
    by_original = {}
    for name, line in zip(names, table, strict=True):
        by_original.setdefault(name.split(" ")[0], []).append([float(number) for number in line.split(",")[1:]])
    for values in by_original.values():
        assert len({label for _, label in values}) == 1
        assert [predicted for predicted, _ in values] == pytest.approx([values[0][0]] * 3, abs=1e-4)


def test_two_runs_with_one_seed_have_the_same_copies(augmented, small_zoo, tmp_path):
    again = train(tmp_path / "again", small_zoo, *AUGMENTED)
    for name in ("best.safetensors", "results.json", "test_predictions.csv"):
        assert (again / name).read_bytes() == (augmented / name).read_bytes()


def test_the_scale_reaches_the_copies(small_zoo, tmp_path):
    """Flattened weights see it; Transformer-NFN would not."""
    found = []
    for scale in ("0.5", "2"):
        run = train(tmp_path / scale, small_zoo, "--augment", "--augment_scale", scale, "--enc_mode", "mlp")
        results = read(run / "results.json")
        assert results["networks"]["train"] == 84
        found.append(results["test"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--augment_factor", "1"), "argument --augment_factor: must be at least 2 and at most 1000, got 1"),
        (("--augment_scale", "0"), "argument --augment_scale: must be at least 0.001 and at most 1000.0, got 0"),
        (("--augment_scale", "nan"), "argument --augment_scale: must be at least 0.001 and at most 1000.0, got nan"),
    ],
)
def test_numbers_out_of_range_are_refused(flags, message, capsys):
    assert message in fail(main.main, capsys, "--augment", "True", *flags)


KILLED_AFTER_THE_EPOCH = """
import os, signal
from nfn_transformer import main
from nfn_transformer.cli.command_line import run_command
replace = os.replace
def killing_replace(source, target):
    replace(source, target)
    if os.path.basename(target) == "metrics.csv":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killing_replace
run_command(main.main)
"""


def test_a_killed_run_with_copies_resumes_to_the_same_result(augmented, small_zoo, tmp_path):
    killed = tmp_path / "killed"
    words = (*FLAGS, "--data_path", small_zoo, "--out_dir", killed, *AUGMENTED)
    assert run_program(KILLED_AFTER_THE_EPOCH, *words).returncode == -signal.SIGKILL
    assert not (killed / "results.json").exists()
    assert main.main(["--resume", str(killed)]) == 0
    for name in ("best.safetensors", "results.json", "test_predictions.csv", "split.json"):
        assert (killed / name).read_bytes() == (augmented / name).read_bytes(), name


def test_a_run_written_before_there_was_augmentation_is_read(plain, tmp_path, capsys):
    older = tmp_path / "older"
    shutil.copytree(plain, older)
    config = read(older / "config.json")
    assert not {"augment_factor", "augment_scale"} & config["data"].keys()
    del config["data"]["augment"]
    (older / "config.json").write_text(json.dumps(config))
    printed = []
    for run in (older, plain):
        assert predict.main(["--run", str(run), "--dataset", "digits"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "the run's own test split: 9 networks" in printed[0]
    del config["data"]["cut_off"]
    (older / "config.json").write_text(json.dumps(config))
    assert "not one of this version: 'cut_off'" in fail(predict.main, capsys, "--run", older, "--dataset", "digits")


def test_a_run_with_copies_is_scored_on_the_originals(augmented, capsys):
    assert predict.main(["--run", str(augmented), "--dataset", "digits"]) == 0
    assert "the run's own test split, without its transformed copies: 9 networks" in capsys.readouterr().out
