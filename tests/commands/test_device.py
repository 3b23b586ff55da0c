"""The device chosen by itself, a GPU where there is one, gives what the CPU gives."""

import csv
import json

import pytest

from nfn_transformer import main, predict


def predictions(path):
    with open(path, newline="") as file:
        return {row["file"]: float(row["predicted"]) for row in csv.DictReader(file)}


def test_auto_agrees_with_the_cpu(small_zoo, tmp_path, capsys):
    flags = ["--dataset", "digits", "--data_path", str(small_zoo), "--epochs", "2", "--cls_mode", "hnps"]
    found = []
    for device in ("cpu", "auto"):
        run = tmp_path / device
        assert main.main([*flags, "--device", device, "--out_dir", str(run)]) == 0
        assert predict.main(["--run", str(run), str(small_zoo), "--device", device, "--out", f"{run}.csv"]) == 0
        found.append((predictions(f"{run}.csv"), predictions(run / "test_predictions.csv")))
    for on_cpu, on_auto in zip(*found, strict=True):
        assert on_auto == pytest.approx(on_cpu, abs=1e-3)
    assert json.loads((tmp_path / "cpu/config.json").read_text())["device"] == "cpu"
