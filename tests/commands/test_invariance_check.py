"""scripts/checks/invariance.py on real runs: it tells an invariant predictor from one that is not."""

import re

import invariance
import pytest
from running import call


def test_only_the_invariant_predictor_stays(small_zoo, tmp_path, monkeypatch, capsys):
    modes = {
        "inv": (),
        "statnn": ("--enc_mode", "statnn"),
        "complete": ("--enc_mode", "complete", "--ensemble", "1"),
        "graph": ("--enc_mode", "graph", "--graph_layers", 1, "--graph_dim", 4),
    }
    for name, flags in modes.items():
        words = ("--dataset", "digits", "--data_path", small_zoo, "--epochs", 5, "--lr", 0.01, *flags)
        assert call("main.py", *words, "--out_dir", tmp_path / name).returncode == 0
    (tmp_path / "unfinished").mkdir()
    words = [str(path) for path in sorted(tmp_path.iterdir())]

    def printed(*flags):
        monkeypatch.setattr("sys.argv", ["invariance.py", *words, *flags])
        assert invariance.main() == 0
        return capsys.readouterr().out

    text = printed()
    moved = dict(re.findall(r"digits, (\w+)-mlp-mlp.*, mean of 1: .+ move by (\S+),", text))
    assert float(moved["inv"]) < 1e-5
    assert float(moved["statnn"]) > 1e-3
    assert "digits, graph-no-no (graph_layers 1, graph_dim 4, standardize True), mean of 1: " in text
    of_one = re.search(r"complete-no-no \(.+\), mean of 1: tau (\S+), on copies (\S+), on both (\S+);", text)
    original, copies, both = map(float, of_one.groups())
    assert original == copies == pytest.approx(both, abs=0.05)  # a copy differs from its original by rounding
    groups = {"permutations": {"complete", "graph"}, "with_classifier": {"complete"}, "complete": {"complete"}}
    for group, unmoved in groups.items():
        text = printed("--group", group)
        most = dict(re.findall(r"digits, (\w+)-\w+-\w+.*, mean of 1: .+ at most (\S+)", text))
        assert set(most) == set(modes)
        assert {name for name, moved in most.items() if float(moved) < 1e-9} == unmoved
        assert all(float(moved) > 1e-4 for name, moved in most.items() if name not in unmoved)
