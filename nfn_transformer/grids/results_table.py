"""Table of a grid's results: mean and standard error over seeds, and paired comparisons."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes as long to import as PyTorch

from nfn_transformer.grids.grid_file import Grid, Published
from nfn_transformer.training.results import RunResult
from nfn_transformer.training.tasks import TASKS, TAU, Score

Results = Mapping[tuple[str, str, int], RunResult]


@dataclass(frozen=True)
class Summary:
    """Score of one row and column over seeds, as Kendall's tau."""

    mean: float
    """Mean; nan without a score."""
    standard_error: float
    """Standard error of the mean; nan with fewer than two scores."""
    seeds: int
    """Number of finished seeds."""
    undefined: int
    """Number of finished seeds whose score is undefined; they are left out of the mean."""
    stopped: int
    """Number of trainings that ended early."""
    published: Published | None
    """Number in the literature."""
    best: bool = False
    """True: the mean is shown as the best of its column."""


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two rows in a column, or of two columns in a row, over the seeds that both have."""

    within: str
    """Name of the column or row in which others are compared."""
    name: str
    """Name of the row or column."""
    reference: str
    """Name of the row or column that it is compared with."""
    difference: float
    """Mean score of `name` minus that of `reference`."""
    low: float
    """Lower end of the difference's 95 % interval."""
    high: float
    """Upper end of the difference's 95 % interval."""
    p: float
    """Probability of such a difference if there is none."""
    wins: int
    """Number of seeds with a positive difference."""
    seeds: int
    """Number of seeds that both have."""


@dataclass(frozen=True)
class Table:
    """All that a grid's report shows."""

    grid: Grid
    """The grid."""
    results: Results
    """Results of the finished cells, by row, column and seed."""
    summaries: Mapping[tuple[str, str], Summary]
    """Summaries, by row and column."""
    comparisons: Sequence[Comparison]
    """Comparisons that the grid asks for."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores of the results' tasks, Kendall's tau where nothing is finished."""
        return tuple(dict.fromkeys(TASKS[result.task].score for result in self.results.values())) or (TAU,)

    @property
    def score_name(self) -> str:
        """Name of the score."""
        return " or ".join(score.name for score in self.scores)

    @property
    def score_key(self) -> str:
        """Name of the score's columns in CSV files."""
        return self.scores[0].key if len(self.scores) == 1 else "score"

    @property
    def decimals(self) -> int:
        """Decimals of the scores."""
        return max(score.decimals for score in self.scores)

    @property
    def sign(self) -> int:
        """1 if more is better, -1 if less is."""
        return 1 if self.scores[0].rises else -1


def build_table(grid: Grid, results: Results) -> Table:
    """Summarize all rows and columns, and compare those that the grid asks for."""
    summaries = {}
    for column in grid.columns:
        by_row = {row.name: _summary(grid, results, row.name, column.name) for row in grid.rows}
        tasks = {result.task for (_, name, _), result in results.items() if name == column.name}
        rises = all(TASKS[task].score.rises for task in tasks)
        decimals = max((TASKS[task].score.decimals for task in tasks), default=3)
        # A mean over fewer seeds is no rival of one over all.
        rivals = {row: s.mean for row, s in by_row.items() if s.seeds == len(grid.seeds) and not s.undefined}
        for row, summary in by_row.items():
            best = (max if rises else min)(rivals.values(), default=math.nan)
            is_best = row in rivals and len(by_row) > 1 and round(summary.mean, decimals) == round(best, decimals)
            summaries[row, column.name] = replace(summary, best=is_best)
    return Table(grid, results, summaries, list(_comparisons(grid, results)))


def _summary(grid: Grid, results: Results, row: str, column: str) -> Summary:
    finished = [results[row, column, seed] for seed in grid.seeds if (row, column, seed) in results]
    scores = [result.score for result in finished if not math.isnan(result.score)]
    return Summary(
        mean=float(np.mean(scores)) if scores else math.nan,
        standard_error=float(np.std(scores, ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else math.nan,
        seeds=len(finished),
        undefined=len(finished) - len(scores),
        stopped=sum(result.status != "complete" for result in finished),
        published=grid.published.get((row, column)),
    )


def _comparisons(grid: Grid, results: Results) -> Iterator[Comparison]:
    """Compare rows with the reference row in each column, then columns with the reference column in each row."""
    rows, columns = ([entry.name for entry in entries] for entries in (grid.rows, grid.columns))
    pairings = [
        (column, row, grid.reference_row, (row, column), (grid.reference_row, column))
        for column in columns
        for row in rows
        if grid.reference_row not in (None, row)
    ]
    pairings += [
        (row, column, grid.reference_column, (row, column), (row, grid.reference_column))
        for row in rows
        for column in columns
        if grid.reference_column not in (None, column)
    ]
    for within, name, reference, one, other in pairings:
        pairs = [(results.get((*one, seed)), results.get((*other, seed))) for seed in grid.seeds]
        if comparison := _compare(within, name, reference, pairs):
            yield comparison


def _compare(
    within: str, name: str, reference: str, pairs: Sequence[tuple[RunResult | None, RunResult | None]]
) -> Comparison | None:
    """Compare two rows or columns; None if no seed has both on the same networks."""
    both = [(a, b) for a, b in pairs if a and b and not math.isnan(a.score) and not math.isnan(b.score)]
    both = [(a, b) for a, b in both if a.tested == b.tested and a.task == b.task]
    if not both:
        return None
    differences = np.array([a.score - b.score for a, b in both])
    share = float(np.mean([a.test / a.train for a, _ in both]))
    low, high, p = corrected_interval(differences, share)
    wins = int((differences > 0).sum())
    return Comparison(within, name, reference, float(differences.mean()), low, high, p, wins, len(both))


def corrected_interval(differences: np.ndarray, test_share: float) -> tuple[float, float, float]:
    """Return the 95 % interval of a mean difference over splits of one data set, and p of no difference.

    Splits of one data set share most of their networks, so their differences are not independent. The corrected
    resampled t-test takes the variance of the mean as (1/n + test/train) times that of the n differences.
    Source: Nadeau and Bengio 2003, "Inference for the generalization error", section 4.

    Args:
        differences: [n], one per split.
        test_share: test networks divided by training networks.

    Returns:
        low, high, p: nan with fewer than two splits, or if all differences are equal.
    """
    n = len(differences)
    if n < 2:
        return math.nan, math.nan, math.nan
    mean = float(differences.mean())
    error = math.sqrt((1 / n + test_share) * float(differences.var(ddof=1)))
    if error == 0:
        return math.nan, math.nan, math.nan
    margin = float(stdtrit(n - 1, 0.975)) * error
    return mean - margin, mean + margin, float(2 * stdtr(n - 1, -abs(mean) / error))
