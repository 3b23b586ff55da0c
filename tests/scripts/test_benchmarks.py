"""The training benchmarks run with tiny sizes, without a warning, and print and write what they measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import graph_memory
import peak_memory
import pytest
import torch
from measuring import NETWORKS, random_zoo, ratios, released_sizes, spread

from nfn_transformer.training.data import split_runs

pytestmark = pytest.mark.usefixtures("quick_python")

REPOSITORY = Path(__file__).parents[2]
CPU = torch.device("cpu")
MIB = 2**20


def run(name: str, out: Path, flags: str) -> tuple[list[list[str]], dict]:
    """The cells of every line of a benchmark's tables, and what it has written."""
    script = REPOSITORY / "scripts/benchmarks" / f"{name}.py"
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--device", "cpu", "--out", str(out), *flags.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    written = json.loads(out.read_text())
    assert written["machine"]["threads"] == 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines], written


def test_training_speed(tmp_path):
    flags = "--rounds 2 --networks 40 --batch_sizes 8 --workers 1 --seconds 0"
    rows, written = run("training_speed", tmp_path / "out.json", flags)
    operations = ["forward", "forward from weights", "training step", "epoch"]
    costs = ["published: collecting samples", "ours: reading features"]
    assert [row[0] for row in rows] == ["", *operations, "", *costs]
    assert rows[0][1:] == ["batch", "published, ms", "ours, ms", "published / ours"]
    assert [entry["what"] for entry in written["measurements"]] == operations
    for entry in written["measurements"]:
        assert {name: len(seconds) for name, seconds in entry["seconds"].items()} == {"published": 2, "ours": 2}
        assert all(second > 0 for seconds in entry["seconds"].values() for second in seconds)
    assert written["flags"]["networks"] == 40


def test_training_memory(tmp_path):
    rows, written = run("training_memory", tmp_path / "out.json", "--batch_sizes 4 8")
    assert [row[:2] for row in rows[1:]] == [
        [what, size] for what in ("without gradients", "with gradients") for size in ("4", "8")
    ]
    for entry in written["measurements"]:
        assert entry["gradients"] > 0
        assert min(entry["bytes"].values()) > entry["gradients"]


def test_training_scaling(tmp_path):
    sizes = "--widths 4 8 --heads 4 --blocks 1 --channels 2,3 --networks 40 --batch_sizes 8"
    plot = tmp_path / "plot.png"
    flags = f"{sizes} --rounds 1 --workers 0 --seconds 0 --plot {plot}"
    rows, written = run("training_scaling", tmp_path / "out.json", flags)
    steps = [["D", "4"], ["D", "8"], ["heads", "4"], ["blocks", "1"], ["channels", "2, 3"]]
    zoo = ["networks in the zoo", "40"]
    assert [row[:2] for row in rows] == [["", "value"], *steps, ["", "value"], zoo]
    assert [[entry["what"], entry["value"]] for entry in written["measurements"]] == [*steps, zoo]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_seeds_at_once(tmp_path):
    flags = "--seeds 1 2 --networks 40 --batch_sizes 8 --rounds 1 --epochs 2"
    rows, written = run("seeds_at_once", tmp_path / "out.json", flags)
    assert rows[0][:2] == ["seeds", "batch"]
    assert [row[:2] for row in rows[1:]] == [["1", "8"], ["2", "8"]]
    for entry in written["measurements"]:
        assert list(entry["seconds"]) == ["one after another", "at once"]


def test_encoders_and_heads(tmp_path):
    grid, plot = tmp_path / "grid.yaml", tmp_path / "plot.png"
    models = (
        "{graph: {command: main, flags: {enc_mode: graph, graph_dim: 4}}, np: {command: main, flags: {cls_mode: np}}}"
    )
    (tmp_path / "models.yaml").write_text(models)
    grid.write_text("{title: t, models: models.yaml, rows: [graph, np], columns: [{name: c, flags: {}}], seeds: [1]}")
    flags = f"--grid {grid} --networks 40 --rounds 2 --seconds 0 --widths 4 8 --plot {plot}"
    rows, written = run("encoders_and_heads", tmp_path / "out.json", flags)
    assert [row[0] for row in rows] == ["", "graph", "np"]
    assert rows[0][1:5] == ["parameters", "reading, s", "epoch, s", "step, MiB"]
    for entry in written["measurements"]:
        assert entry["bytes"] > 4 * entry["parameters"]  # gradients among them
        assert len(entry["epochs"]) == 2
        assert {width: len(seconds) for width, seconds in entry["steps"].items()} == {"4": 2, "8": 2}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_graph_encoder_takes_less_than_a_third_of_dense_edges(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    flags = ["--device", "cpu", "--batch_sizes", "2", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["graph_memory.py", *flags])
    assert graph_memory.main() == 0  # it compares the outputs of both ways
    assert [entry["share"] < 1 / 3 for entry in json.loads(out.read_text())["measurements"]] == [True, True]


def test_the_peak_is_of_tensors_that_live_together():
    def function():
        first = torch.ones(3 * MIB, dtype=torch.uint8)
        second = torch.ones(2 * MIB, dtype=torch.uint8)
        del first, second
        torch.ones(4 * MIB, dtype=torch.uint8)

    assert peak_memory.peak_memory(function, CPU) == pytest.approx(5 * MIB, rel=0.01)


def test_a_wrong_peak_is_noticed(monkeypatch):
    peak_memory.check_peak_memory(CPU)
    monkeypatch.setattr(peak_memory, "peak_memory", lambda function, device: 18 * MIB)
    with pytest.raises(RuntimeError, match=r"10 MiB was measured as 18\.00 MiB"):
        peak_memory.check_peak_memory(CPU)


def test_the_zoo_has_whole_batches_and_is_the_same_everywhere():
    names = [f"run{index}" for index in range(NETWORKS)]
    assert len(split_runs(names, 1).train) == 2048
    spec = released_sizes(width=8)
    first, second = random_zoo(spec, 10), random_zoo(spec, 10)
    assert torch.equal(first.rows, second.rows)
    assert torch.equal(first.labels, second.labels)
    first.weights(torch.arange(3)).check(spec)


def test_the_networks_are_of_the_released_size():
    assert random_zoo(released_sizes(), 1).rows.shape[1] == 20_074


def test_medians_ranges_and_ratios():
    assert spread([3.0, 1.0, 2.0], scale=1000) == "2000 (1000 to 3000)"
    assert spread([0.01234]) == "0.0123"
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
