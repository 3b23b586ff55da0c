"""scripts/checks/invariance.py on real runs: it tells an invariant predictor from one that is not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import ENVIRONMENT, run

SCRIPT = Path(__file__).parents[2] / "scripts/checks/invariance.py"


def test_only_the_invariant_predictor_stays(small_zoo, tmp_path):
    modes = {
        "inv": (),
        "statnn": ("--enc_mode", "statnn"),
        "complete": ("--enc_mode", "complete", "--ensemble", "1"),
        "graph": ("--enc_mode", "graph", "--graph_layers", 1, "--graph_dim", 4),
    }
    for name, flags in modes.items():
        words = ("--dataset", "digits", "--data_path", small_zoo, "--epochs", 5, "--lr", 0.01, *flags)
        assert run("main.py", *words, "--out_dir", tmp_path / name).returncode == 0
    (tmp_path / "unfinished").mkdir()
    words = [sys.executable, "-W", "error", SCRIPT, *sorted(tmp_path.iterdir())]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr
    moved = dict(re.findall(r"digits, (\w+)-mlp-mlp.*, mean of 1: .+ move by (\S+),", done.stdout))
    assert float(moved["inv"]) < 1e-5
    assert float(moved["statnn"]) > 1e-3
    assert "digits, graph-no-no (graph_layers 1, graph_dim 4, standardize True), mean of 1: " in done.stdout
    of_one = re.search(r"complete-no-no \(.+\), mean of 1: tau (\S+), on copies (\S+), on both (\S+);", done.stdout)
    original, copies, both = map(float, of_one.groups())
    assert original == copies == pytest.approx(both, abs=0.05)  # a copy differs from its original by rounding
    groups = {"permutations": {"complete", "graph"}, "with_classifier": {"complete"}, "complete": {"complete"}}
    for group, unmoved in groups.items():
        done = subprocess.run([*map(str, words), "--group", group], capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        most = dict(re.findall(r"digits, (\w+)-\w+-\w+.*, mean of 1: .+ at most (\S+)", done.stdout))
        assert set(most) == set(modes)
        assert {name for name, moved in most.items() if float(moved) < 1e-9} == unmoved
        assert all(float(moved) > 1e-4 for name, moved in most.items() if name not in unmoved)
