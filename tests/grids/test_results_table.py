"""Means, standard errors, the best of a column, and paired comparisons: against numbers known otherwise."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from table_by_hand import NAN, grid, result, results

from nfn_transformer.grids import rendering
from nfn_transformer.grids.grid_file import Published
from nfn_transformer.grids.results_table import build_table, corrected_interval


def test_mean_and_standard_error():
    table = build_table(grid(), results({("A", "all"): [0.1, 0.2, 0.6], ("B", "all"): [0.5, None, None]}))
    a, b = table.summaries["A", "all"], table.summaries["B", "all"]
    assert a.mean == pytest.approx(0.3)
    # Variance (0.04 + 0.01 + 0.09) / 2, over three seeds.
    assert a.standard_error == pytest.approx(math.sqrt(0.07 / 3))
    assert (a.seeds, a.undefined, a.stopped, a.published) == (3, 0, 0, None)
    assert (b.mean, b.seeds) == (0.5, 1)
    assert math.isnan(b.standard_error)


def test_nothing_is_finished():
    table = build_table(grid(), {})
    for summary in table.summaries.values():
        assert math.isnan(summary.mean)
        assert math.isnan(summary.standard_error)
        assert (summary.seeds, summary.undefined, summary.best) == (0, 0, False)
    assert set(table.summaries) == {("A", "all"), ("B", "all")}


def test_an_undefined_tau_is_left_out_and_counted():
    table = build_table(grid(), results({("A", "all"): [0.9, NAN, 0.7], ("B", "all"): [NAN, NAN, NAN]}))
    a, b = table.summaries["A", "all"], table.summaries["B", "all"]
    assert (a.mean, a.seeds, a.undefined) == (pytest.approx(0.8), 3, 1)
    assert a.standard_error == pytest.approx(0.1)
    assert (b.seeds, b.undefined) == (3, 3)
    assert math.isnan(b.mean)
    assert not a.best
    assert not b.best


def test_trainings_that_ended_early_are_counted():
    found = results({("A", "all"): [0.1, 0.2]}) | {("A", "all", 3): result(0.3, status="diverged in epoch 7")}
    assert build_table(grid(), found).summaries["A", "all"].stopped == 1


def test_published_numbers_stand_beside():
    published = {("B", "all"): Published(0.9, 0.01)}
    table = build_table(grid(published=published), {})
    assert table.summaries["B", "all"].published == Published(0.9, 0.01)
    assert table.summaries["A", "all"].published is None


def best(taus: dict, **settings) -> set:
    table = build_table(grid(**settings), results(taus))
    return {place for place, summary in table.summaries.items() if summary.best}


def test_the_best_of_each_column():
    taus = {("A", "x"): [0.1] * 3, ("B", "x"): [0.2] * 3, ("A", "y"): [-0.1] * 3, ("B", "y"): [-0.2] * 3}
    assert best(taus, columns="x y") == {("B", "x"), ("A", "y")}


def test_only_rows_with_all_seeds_compete():
    assert best({("A", "all"): [0.1, 0.1, 0.1], ("B", "all"): [0.9, 0.9, None]}) == {("A", "all")}
    assert best({("A", "all"): [0.1, 0.1, 0.1], ("B", "all"): [0.9, 0.9, NAN]}) == {("A", "all")}
    assert best({("A", "all"): [0.1, 0.1, None], ("B", "all"): [0.9, 0.9, None]}) == set()


def test_what_is_equal_in_three_digits_shares_the_bold():
    taus = {("A", "all"): [0.5] * 3, ("B", "all"): [0.5004] * 3, ("C", "all"): [0.4994] * 3}
    assert best(taus, rows="A B C") == {("A", "all"), ("B", "all")}


def test_a_row_alone_is_not_the_best():
    assert best({("A", "all"): [0.5] * 3}, rows="A") == set()


DIFFERENCES = np.array([0.03, -0.01, 0.02, 0.05, 0.015])


def test_the_interval_without_shared_networks_is_the_t_test():
    low, high, p = corrected_interval(DIFFERENCES, 0.0)
    expected = ttest_1samp(DIFFERENCES, 0.0)
    assert p == pytest.approx(expected.pvalue, rel=1e-12)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-12)
    assert p > 0.05
    assert low < 0 < high


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_of_nadeau_and_bengio(sign):
    differences, share = sign * DIFFERENCES, 15 / 70
    variance = sum((d - np.mean(differences)) ** 2 for d in differences) / 4
    error = math.sqrt((1 / 5 + 15 / 70) * variance)
    quantile = 2.7764451051977987  # of Student's t with 4 degrees of freedom, at 0.975
    low, high, p = corrected_interval(differences, share)
    assert (low, high) == pytest.approx((sign * 0.021 - quantile * error, sign * 0.021 + quantile * error), rel=1e-9)
    assert p == pytest.approx(2 * (1 - student.cdf(0.021 / error, 4)), rel=1e-9)
    plain = corrected_interval(differences, 0.0)
    assert high - low > plain[1] - plain[0]
    assert p > plain[2]


def test_intervals_of_too_little():
    assert all(math.isnan(value) for value in corrected_interval(np.array([]), 0.2))
    assert all(math.isnan(value) for value in corrected_interval(np.array([0.1]), 0.2))
    assert all(math.isnan(value) for value in corrected_interval(np.array([0.25, 0.25]), 0.2))


def test_rows_are_compared_over_the_seeds_that_both_have():
    taus = {("A", "all"): [0.5, 0.6, 0.7, NAN, 0.9], ("B", "all"): [0.4, 0.7, None, 0.1, 0.5]}
    table = build_table(grid(seeds=(1, 2, 3, 4, 5), reference_row="B"), results(taus, train=42, test=9))
    (comparison,) = table.comparisons
    assert (comparison.within, comparison.name, comparison.reference) == ("all", "A", "B")
    assert (comparison.seeds, comparison.wins) == (3, 2)  # seeds 1, 2 and 5
    differences = np.array([0.1, -0.1, 0.4])
    assert comparison.difference == pytest.approx(differences.mean())
    expected = corrected_interval(differences, 9 / 42)
    assert (comparison.low, comparison.high, comparison.p) == pytest.approx(expected)


def test_columns_are_compared_within_a_row():
    taus = {("A", "x"): [0.5, 0.6, 0.7], ("A", "y"): [0.4, 0.4, 0.6], ("B", "x"): [0.1] * 3, ("B", "y"): [0.2] * 3}
    table = build_table(grid(columns="x y", reference_column="x"), results(taus))
    found = [(c.within, c.name, c.reference, round(c.difference, 6), c.wins) for c in table.comparisons]
    assert found == [("A", "y", "x", pytest.approx(-0.133333), 0), ("B", "y", "x", pytest.approx(0.1), 3)]


def test_what_has_no_pair_is_not_compared():
    taus = {("A", "x"): [0.5, None], ("B", "x"): [None, 0.5], ("A", "y"): [NAN, 0.1], ("B", "y"): [0.1, NAN]}
    table = build_table(grid(columns="x y", seeds=(1, 2), reference_row="A", reference_column="y"), results(taus))
    assert table.comparisons == []
    one = {("A", "x"): [0.5, 0.5], ("B", "x"): [None, 0.25]}
    (comparison,) = build_table(grid(columns="x", seeds=(1, 2), reference_row="A"), results(one)).comparisons
    assert (comparison.difference, comparison.seeds, comparison.wins) == (-0.25, 1, 0)
    assert math.isnan(comparison.p)


def test_nothing_is_compared_unasked():
    assert build_table(grid(), results({("A", "all"): [0.5] * 3, ("B", "all"): [0.4] * 3})).comparisons == []


def test_scores_of_other_tasks():
    errors = {("A", "all"): [0.2, 0.3], ("B", "all"): [0.1, 0.2]}
    edited = {cell: replace(result, task="edit") for cell, result in results(errors).items()}
    table = build_table(grid(seeds=(1, 2), reference_row="A"), edited)
    assert [summary.best for summary in table.summaries.values()] == [False, True]
    assert (table.score_name, table.score_key, table.sign) == ("mean squared error", "loss", -1)
    assert rendering.summary_header(table)[2:4] == ["loss_mean", "loss_standard_error"]
    text = rendering.markdown(table, "command", [])
    assert "Mean squared error on the test side" in text
    assert "| B | **0.15000 ± 0.05000** |" in text
    assert "| -0.10000 |" in text
    assert "Difference of mean squared error on the same splits" in text
    mixed = edited | {("A", "all", 2): replace(edited["A", "all", 2], task="classify")}
    table = build_table(grid(seeds=(1, 2), reference_row="A"), mixed)
    assert table.score_key == "score"
    assert table.comparisons[0].seeds == 1  # the other pair is of two tasks
