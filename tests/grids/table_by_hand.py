"""Grids and results without a file or a run: tables whose every number is written down in a test."""

import math
from collections.abc import Mapping
from pathlib import Path

from nfn_transformer.grids.grid_file import Grid, GridColumn, GridRow, Published
from nfn_transformer.training.results import RunResult


def grid(
    rows: str = "A B",
    columns: str = "all",
    seeds: tuple[int, ...] = (1, 2, 3),
    reference_row: str | None = None,
    reference_column: str | None = None,
    published: Mapping[tuple[str, str], Published] | None = None,
    **texts,
) -> Grid:
    """A grid; names are separated by blanks."""
    return Grid(
        path=Path("grid.yaml"),
        title=texts.get("title", "A table"),
        about=texts.get("about", "About it."),
        rows=tuple(GridRow(name, "main", {}) for name in rows.split()),
        columns=tuple(GridColumn(name, {}) for name in columns.split()),
        seeds=seeds,
        reference_row=reference_row,
        reference_column=reference_column,
        published=published or {},
        source="a paper",
        figure=texts.get("figure", "dots"),
    )


def result(tau: float, train: int = 70, test: int = 15, status: str = "complete") -> RunResult:
    """A result with this tau."""
    return RunResult(tau, tau - 0.1, tau + 0.1, 0.5, 0.125, tau + 0.01, train, test, status)


def results(taus: Mapping[tuple[str, str], list[float | None]], **sizes) -> dict[tuple[str, str, int], RunResult]:
    """(row, column) -> taus of the seeds 1, 2, 3, ...; None where a cell is not finished."""
    return {
        (row, column, seed): result(tau, **sizes)
        for (row, column), values in taus.items()
        for seed, tau in enumerate(values, 1)
        if tau is not None
    }


NAN = math.nan
