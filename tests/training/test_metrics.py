"""Metrics against known values, and the rule for the best epoch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfn_transformer.training.metrics import Metrics, is_better, kendall_tau, measure_logits


def slow_tau_b(x, y):
    """The definition: concordant minus discordant pairs over the geometric mean of untied pairs."""
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    sign = [((x[i] > x[j]) - (x[i] < x[j]), (y[i] > y[j]) - (y[i] < y[j])) for i, j in pairs]
    untied_x, untied_y = sum(a != 0 for a, _ in sign), sum(b != 0 for _, b in sign)
    return sum(a * b for a, b in sign) / math.sqrt(untied_x * untied_y)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
def test_tau_is_tau_b(pairs):
    x, y = zip(*pairs, strict=True)
    found = kendall_tau(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(slow_tau_b(x, y), abs=1e-12)


def test_known_values():
    labels = torch.tensor([0.2, 0.4, 0.6, 0.8])
    found = measure_logits(torch.logit(torch.tensor([0.3, 0.2, 0.6, 0.9])), labels)
    assert found.tau == pytest.approx(4 / 6)
    assert found.mae == pytest.approx(0.1, abs=1e-6)
    assert found.r2 == pytest.approx(1 - (0.01 + 0.04 + 0 + 0.01) / 0.2, abs=1e-5)
    cross_entropy = -(
        0.2 * math.log(0.3) + 0.8 * math.log(0.7)
        + 0.4 * math.log(0.2) + 0.6 * math.log(0.8)
        + 0.6 * math.log(0.6) + 0.4 * math.log(0.4)
        + 0.8 * math.log(0.9) + 0.2 * math.log(0.1)
    ) / 4  # fmt: skip
    assert found.loss == pytest.approx(cross_entropy, abs=1e-6)


def test_tau_of_predictions_that_are_not_finite_is_undefined():
    assert math.isnan(kendall_tau(torch.tensor([0.1, math.nan]), torch.tensor([0.1, 0.2])))


def epoch(tau, loss):
    return Metrics(loss=loss, tau=tau, r2=0.0, mae=0.0)


@pytest.mark.parametrize(
    ("candidate", "best", "expected"),
    [
        (epoch(0.5, 9.0), epoch(0.4, 1.0), True),
        (epoch(0.4, 1.0), epoch(0.5, 9.0), False),
        (epoch(0.5, 1.0), epoch(0.5, 2.0), True),
        (epoch(0.5, 1.0), epoch(0.5, 1.0), False),
        (epoch(-1.0, 9.0), epoch(math.nan, 1.0), True),
        (epoch(math.nan, 1.0), epoch(-1.0, 9.0), False),
        (epoch(math.nan, 1.0), epoch(math.nan, 2.0), True),
    ],
)
def test_the_best_epoch(candidate, best, expected):
    assert is_better(candidate, best) is expected
