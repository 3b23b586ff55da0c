"""From the results of cells to a table: mean and standard error over seeds, and paired comparisons."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from nfn_transformer.grids.cells import CellResult
from nfn_transformer.grids.grid_file import Grid, Published

Results = Mapping[tuple[str, str, int], CellResult]


@dataclass(frozen=True)
class Summary:
    """Kendall's tau of one row and column over seeds.

    Fields: mean and standard_error, nan where they are not defined (the error of one seed is not); seeds, how many are
    finished; undefined, how many of those have no tau and are left out; stopped, how many trainings ended early;
    published, the number in the literature; best, whether it is to be shown as the best of its column.
    """

    mean: float
    standard_error: float
    seeds: int
    undefined: int
    stopped: int
    published: Published | None
    best: bool = False


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two rows in a column, or of two columns in a row, over the seeds that both have.

    Fields: place, the column or row; name and reference, what is compared; difference, mean tau of `name` minus that
    of `reference`; low and high, its 95 % interval; p, of no difference; wins, in how many of the seeds it is above 0.
    """

    place: str
    name: str
    reference: str
    difference: float
    low: float
    high: float
    p: float
    wins: int
    seeds: int


@dataclass(frozen=True)
class Table:
    """Everything that a grid's report shows."""

    grid: Grid
    results: Results
    summaries: Mapping[tuple[str, str], Summary]
    comparisons: Sequence[Comparison]


def build_table(grid: Grid, results: Results) -> Table:
    """Summaries of all rows and columns, and the comparisons that the grid asks for."""
    summaries = {}
    for column in grid.columns:
        of_column = {row.name: _summary(grid, results, row.name, column.name) for row in grid.rows}
        complete = [s.mean for s in of_column.values() if s.seeds == len(grid.seeds) and not s.undefined]
        for row, found in of_column.items():
            # A mean over fewer seeds is no rival of one over all.
            full = found.seeds == len(grid.seeds) and not found.undefined
            best = full and len(of_column) > 1 and f"{found.mean:.3f}" == f"{max(complete):.3f}"
            summaries[row, column.name] = replace(found, best=best)
    return Table(grid, results, summaries, list(_comparisons(grid, results)))


def _summary(grid: Grid, results: Results, row: str, column: str) -> Summary:
    found = [results[row, column, seed] for seed in grid.seeds if (row, column, seed) in results]
    taus = [result.tau for result in found if not math.isnan(result.tau)]
    return Summary(
        mean=float(np.mean(taus)) if taus else math.nan,
        standard_error=float(np.std(taus, ddof=1) / math.sqrt(len(taus))) if len(taus) > 1 else math.nan,
        seeds=len(found),
        undefined=len(found) - len(taus),
        stopped=sum(result.status != "complete" for result in found),
        published=grid.published.get((row, column)),
    )


def _comparisons(grid: Grid, results: Results) -> Iterator[Comparison]:
    """Rows with the reference row in each column, then columns with the reference column in each row."""
    rows, columns = ([entry.name for entry in entries] for entries in (grid.rows, grid.columns))
    places = [
        (column, row, grid.reference_row, (row, column), (grid.reference_row, column))
        for column in columns
        for row in rows
        if grid.reference_row not in (None, row)
    ]
    places += [
        (row, column, grid.reference_column, (row, column), (row, grid.reference_column))
        for row in rows
        for column in columns
        if grid.reference_column not in (None, column)
    ]
    for place, name, reference, one, other in places:
        pairs = [(results.get((*one, seed)), results.get((*other, seed))) for seed in grid.seeds]
        if comparison := _compare(place, name, reference, pairs):
            yield comparison


def _compare(
    place: str, name: str, reference: str, pairs: Sequence[tuple[CellResult | None, CellResult | None]]
) -> Comparison | None:
    """None where no seed has both."""
    both = [(a, b) for a, b in pairs if a and b and not math.isnan(a.tau) and not math.isnan(b.tau)]
    if not both:
        return None
    differences = np.array([a.tau - b.tau for a, b in both])
    share = float(np.mean([a.test / a.train for a, _ in both]))
    low, high, p = corrected_interval(differences, share)
    wins = int((differences > 0).sum())
    return Comparison(place, name, reference, float(differences.mean()), low, high, p, wins, len(both))


def corrected_interval(differences: np.ndarray, test_share: float) -> tuple[float, float, float]:
    """The 95 % interval of a mean difference over splits of one data set, and p of no difference.

    Splits of one data set share most of their networks, so their differences are not independent: the corrected
    resampled t-test (Nadeau and Bengio 2003, "Inference for the generalization error", section 4) takes the variance of
    the mean as (1/n + test/train) times that of the n differences.

    Args:
        differences: [n], one for each split.
        test_share: test networks divided by training networks.

    Returns:
        low, high, p: nan where there are fewer than two splits, or all differences are equal.
    """
    n = len(differences)
    if n < 2:
        return math.nan, math.nan, math.nan
    mean = float(differences.mean())
    error = math.sqrt((1 / n + test_share) * float(differences.var(ddof=1)))
    if error == 0:
        return math.nan, math.nan, math.nan
    margin = float(student.ppf(0.975, n - 1)) * error
    return mean - margin, mean + margin, float(2 * student.sf(abs(mean) / error, n - 1))
