"""The estimate before a zoo is made: which runs, how many train together, checkpoints and size."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfn_transformer import make_zoo
from nfn_transformer.generation import estimate as estimates
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, ZooRun
from nfn_transformer.generation.images import digits
from nfn_transformer.generation.zoo_plan import ZooPlan

CPU = torch.device("cpu")
SMALL, LARGE = Architecture(8, 2, 1, 8), Architecture(32, 2, 3, 64)


def _plan(architectures: list[Architecture], fractions=(1.0,), snapshots=("75",), **given) -> ZooPlan:
    settings = Hyperparameters("adam", 0.3, 0.0, 1.0, 0.1, 0.01)
    runs = [
        ZooRun(number, replace(settings, train_fraction=fractions[number % len(fractions)]), architecture, 4)
        for number, architecture in enumerate(architectures)
    ]
    fields = {"out": Path("zoo"), "dataset": "digits", "population": 4, "patch": 2, "seed": 1, "batch_size": 32}
    return ZooPlan(runs=runs, snapshots=snapshots, crop_padding=0, half=False, **{**fields, **given})


def test_the_size_is_that_of_the_zoo(tmp_path, capsys):
    flags = ["--embed_dim", "8", "--hidden", "8", "--patch", "4", "--epochs", "4", "--train_images", "64"]
    flags += ["--runs", "5", "--snapshots", "1,100,best", "--test_images", "50"]
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), *flags, "--dry_run", "True"]) == 0
    announced, *table = capsys.readouterr().out.splitlines()
    assert announced.startswith("5 runs in 1 populations of at most ")
    assert "64 train and 50 test samples, 10 classes: 15 checkpoints, about 0 MiB and" in announced
    runs = list(csv.DictReader(table))
    assert [run["run"] for run in runs] == list("01234")
    assert not list(tmp_path.iterdir())
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), *flags]) == 0
    rows = list(csv.DictReader((tmp_path / "zoo/metadata/digits.csv").read_text().splitlines()))
    assert [row["lr"] for row in rows[::3]] == [run["lr"] for run in runs]
    files = [path.stat().st_size for path in (tmp_path / "zoo/digits").iterdir()]
    data = digits().limited(64, 50)
    plan = _plan([Architecture(8, 2, 2, 8)] * 5, snapshots=("1", "100", "best"), patch=4)
    expected = estimates.estimate(plan, data, CPU)
    assert expected.checkpoints == len(files) == 15
    assert expected.size == pytest.approx(sum(files), rel=0.2)
    assert expected.seconds > 0


def test_more_networks_train_together_where_more_memory_is_free(monkeypatch):
    data = digits().limited(64, 10)
    small, large = _plan([SMALL]), _plan([SMALL, LARGE])
    sizes = {}
    for name, plan in (("small", small), ("large", large)):
        for free in (1 << 20, 1 << 26, 1 << 27, 1 << 40):
            monkeypatch.setattr(estimates, "free_bytes", lambda device, free=free: free)
            sizes[name, free] = estimates.population_size(plan, data, CPU)
    assert sizes["small", 1 << 40] == sizes["large", 1 << 40] == 64
    assert sizes["large", 1 << 20] == 1
    assert 1 < sizes["large", 1 << 26] < sizes["small", 1 << 26]
    assert sizes["large", 1 << 27] // sizes["large", 1 << 26] == 2


def test_populations_have_one_size_and_trainings_about_as_long():
    plan = _plan([SMALL] * 9 + [LARGE] * 3, fractions=(0.5, 1.0, 0.75), population=4)
    groups = plan.populations()
    assert sorted(run.number for group in groups for run in group) == list(range(12))
    assert sorted(len(group) for group in groups) == [3, 3, 3, 3]
    assert all(len({run.architecture for run in group}) == 1 for group in groups)
    fractions = [{run.settings.train_fraction for run in group} for group in groups if group[0].architecture == SMALL]
    assert fractions == [{0.5}, {0.75}, {1.0}]
