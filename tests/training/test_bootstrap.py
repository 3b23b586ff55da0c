"""The bootstrap interval of tau: what it covers, what it draws, and where it stands in a run's results."""

import json
import math

import pytest
import torch

from nfn_transformer import main
from nfn_transformer.training.metrics import kendall_tau, tau_interval
from nfn_transformer.training.report import read_summary
from nfn_transformer.training.run_directory import RunDirectory


def sample(n, correlation, generator):
    """Pairs [n] of two normal variables with this correlation, whose tau is 2 / pi arcsin(correlation)."""
    x, noise = torch.randn(2, n, generator=generator, dtype=torch.float64)
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def alone(n):
    """A run id for each of n networks."""
    return [f"run{i}" for i in range(n)]


def width(interval):
    return interval.high - interval.low


def test_it_contains_tau_and_narrows_with_more_networks(generator):
    widths = []
    for n in (25, 100, 400):
        predictions, labels = sample(n, 0.8, generator)
        found = tau_interval(predictions, labels, alone(n), seed=1, draws=200)
        assert found.low < kendall_tau(predictions, labels) < found.high
        assert (found.level, found.draws, found.undefined) == (0.95, 200, 0)
        widths.append(width(found))
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_the_seed_decides_it(generator):
    predictions, labels = sample(40, 0.5, generator)
    first, second, other = (tau_interval(predictions, labels, alone(40), seed, draws=100) for seed in (1, 1, 2))
    assert first == second
    assert first.low != other.low


@pytest.mark.parametrize(("sign", "bound"), [(1, 1.0), (-1, -1.0)])
def test_perfect_order_leaves_no_doubt(sign, bound):
    labels = torch.linspace(0, 1, 30)
    found = tau_interval(sign * labels**2, labels, alone(30), seed=1, draws=50)
    assert (found.low, found.high) == pytest.approx((bound, bound), abs=1e-12)
    assert -1 <= found.low <= found.high <= 1


def test_constant_predictions_have_no_interval():
    found = tau_interval(torch.full((20,), 0.5), torch.rand(20), alone(20), seed=1, draws=50)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert (found.draws, found.undefined) == (50, 50)
    assert str(found) == "[nan, nan] without 50 of 50 draws"


def test_draws_of_one_network_thrice_are_counted_and_left_out():
    """Three networks are in one order: one draw in nine has a single one; all others have tau 1."""
    labels = torch.tensor([0.1, 0.2, 0.3])
    found = tau_interval(labels, labels, alone(3), seed=1, draws=900)
    assert found.undefined == pytest.approx(100, abs=40)
    assert (found.low, found.high) == pytest.approx((1, 1), abs=1e-12)
    assert str(found) == f"[1.0000, 1.0000] without {found.undefined} of 900 draws"


def test_whole_runs_are_drawn(generator):
    predictions, labels = sample(40, 0.5, generator)
    once = tau_interval(predictions, labels, alone(40), seed=1, draws=200)
    thrice = [torch.cat([values] * 3) for values in (predictions, labels)]
    as_copies = tau_interval(*thrice, alone(40) * 3, seed=1, draws=200)
    # Copies are tied with each other, which tau-b does not count.
    assert (as_copies.low, as_copies.high) == pytest.approx((once.low, once.high), abs=1e-12)
    apart = tau_interval(*thrice, alone(120), seed=1, draws=200)
    assert width(apart) < 0.75 * width(once)


def test_the_order_of_networks_does_not_matter(generator):
    predictions, labels = sample(40, 0.5, generator)
    order = torch.randperm(40, generator=generator)
    moved = tau_interval(predictions[order], labels[order], [f"run{i}" for i in order.tolist()], seed=1, draws=50)
    expected = tau_interval(predictions, labels, alone(40), seed=1, draws=50)
    assert (moved.low, moved.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_it_covers_the_true_tau_about_as_often_as_it_says(generator):
    correlation, samples = 0.7, 100
    tau = 2 / math.pi * math.asin(correlation)
    covered = 0
    for number in range(samples):
        predictions, labels = sample(60, correlation, generator)
        found = tau_interval(predictions, labels, alone(60), seed=number, draws=100)
        covered += found.low <= tau <= found.high
    assert 0.88 <= covered / samples <= 0.99


def test_a_runs_results_have_it_and_those_of_older_runs_need_not(small_zoo, tmp_path):
    path = tmp_path / "run"
    flags = ["--dataset", "digits", "--data_path", str(small_zoo), "--epochs", "1", "--enc_mode", "no"]
    assert main.main([*flags, "--seed", "4", "--device", "cpu", "--out_dir", str(path)]) == 0
    run = RunDirectory(path)
    results = json.loads(run.results_file.read_text())
    table = [line.split(",") for line in run.predictions_file.read_text().splitlines()[1:]]
    columns = [[float(row[column]) for row in table] for column in (1, 2)]
    predictions, labels = torch.tensor(columns, dtype=torch.float64)
    expected = tau_interval(predictions, labels, [row[0].split("_")[0] for row in table], seed=4)
    assert results["test_tau_interval"] == {
        "low": expected.low, "high": expected.high, "level": 0.95, "draws": 1000, "undefined": expected.undefined,
    }  # fmt: skip
    text, status = read_summary(run)
    assert f"test tau {results['test']['tau']:.4f} {expected}  R2" in text
    del results["test_tau_interval"]
    run.results_file.write_text(json.dumps(results))
    older, same_status = read_summary(run)
    assert older == text.replace(f" {expected}", "")
    assert status == same_status == "complete"
