"""xgb.py and gbm.py where trees find nothing to split: constants, published flags, bad input, devices, copies."""

import shutil
from pathlib import Path

import pytest
import torch
from running import call, fail
from tree_runs import COMMANDS, MODELS, read, rows

from nfn_transformer import gbm, xgb


@pytest.fixture(scope="module")
def few(small_zoo, tmp_path_factory) -> Path:
    """14 networks, of which 9 are to train on: too few for any split."""
    folder = tmp_path_factory.mktemp("few") / "zoo"
    shutil.copytree(small_zoo, folder, ignore=shutil.ignore_patterns(".zoo_cache"))
    table = folder / "metadata/digits.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:15]) + "\n")
    return folder


@MODELS
def test_a_constant_prediction_has_no_tau_but_is_the_mean(model, few, tmp_path, capsys):
    path = tmp_path / "run"
    flags = ["--dataset", "digits", "--data_path", str(few), "--device", "cpu", "--out_dir", str(path)]
    assert COMMANDS[model].main([*flags, "--model", model]) == 0
    printed = capsys.readouterr()
    assert "split by seed 3: 9 train, 2 validation, 3 test" in printed.out
    assert "test tau nan  R2" in printed.out
    assert "warning: tau is undefined where all predictions, or all labels, are equal" in printed.out
    results = read(path / "results.json")
    assert (results["status"], results["best_round"], results["trees"]) == ("complete", 1, 1)
    assert results["test"]["tau"] is results["validation"]["tau"] is None
    assert results["test_tau_interval"] == {"low": None, "high": None, "level": 0.95, "draws": 1000, "undefined": 1000}
    accuracies = [int(name[:-3].rsplit("_")[-1]) / 1e4 for name in read(path / "split.json")["train"]]
    for row in rows(path / "test_predictions.csv"):
        assert float(row["predicted"]) == pytest.approx(sum(accuracies) / 9, abs=1e-3)
    assert COMMANDS[model].main(["--resume", str(path)]) == 0
    assert "test tau nan" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "model"), [("xgb.py", "dart"), ("gbm.py", "gbdt")])
def test_the_published_flags_run(name, model, few, tmp_path):
    """The words of the publication's commands, as they stand there."""
    published = f"--model {model} --wandb False --dataset digits --data_path {few} --cut_off 0".split()
    done = call(name, *published, "--out_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "run/config.json")["data"]["cut_off"] == 0
    assert (tmp_path / "run/results.json").exists()


@pytest.mark.parametrize("command", [xgb, gbm], ids=["xgb.py", "gbm.py"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--device", "cuda:99"), "error: --device cuda:99: this machine has "),
        (("--device", "tpu"), "error: --device tpu: expected auto, cpu, cuda or cuda:N"),
        (("--model", "forest"), "argument --model: invalid choice: 'forest'"),
        (("--epochs", "5"), "unrecognized arguments: --epochs 5"),
        (("--augment_factor", "1"), "argument --augment_factor: must be at least 2"),
    ],
)
def test_bad_input(command, flags, message, few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in fail(command.main, capsys, "--dataset", "digits", "--data_path", few, *flags)
    assert not list(tmp_path.iterdir())


def test_devices(few, tmp_path, capsys):
    """`auto` finds a GPU where there is one, and says it where the library cannot use it; `cpu` stays the CPU."""
    for name, command in (("xgb", xgb), ("gbm", gbm)):
        path = tmp_path / name
        flags = ["--dataset", "digits", "--data_path", str(few), "--out_dir", str(path)]
        assert command.main(flags) == 0
        printed = capsys.readouterr()
        device = read(path / "config.json")["device"]
        assert f"; device {device}\n" in printed.out
        if torch.cuda.is_available():
            assert (device == "cpu") == ("training on the CPU" in printed.err)
        else:
            assert (device, printed.err) == ("cpu", "")


@pytest.mark.parametrize("model", ["gbtree", "gbdt"])
def test_copies_of_networks_enlarge_what_trees_learn_from(model, few, tmp_path, capsys):
    """30 times 9 networks are enough for splits."""
    path = tmp_path / "run"
    flags = ["--dataset", "digits", "--data_path", str(few), "--device", "cpu", "--out_dir", str(path)]
    assert COMMANDS[model].main([*flags, "--model", model, "--augment", "--augment_factor", "30"]) == 0
    results = read(path / "results.json")
    assert results["networks"] == {"train": 270, "validation": 60, "test": 90}
    assert results["test"]["tau"] is not None
    assert len(read(path / "split.json")["train"]) == 9
