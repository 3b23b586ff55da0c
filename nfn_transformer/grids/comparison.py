"""Table of runs that exist: a row for each configuration, a column for each choice of data, paired by seed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from nfn_transformer.grids.grid_file import Grid, GridColumn, GridRow
from nfn_transformer.grids.recorded_runs import RecordedRun, differing, setting_text
from nfn_transformer.grids.results_table import Table, build_table
from nfn_transformer.training.results import RunResult


def compare_runs(runs: Sequence[RecordedRun]) -> Table:
    """Return the table of finished runs; its text says what is left out and what cannot be paired.

    Runs that differ by their seeds alone are one row. Runs of one seed in one column have tested the same networks.
    """
    rows: dict[str, list[RecordedRun]] = {}
    columns: list[list[RecordedRun]] = []
    placed: dict[tuple[int, int, int], RecordedRun] = {}
    notes = []
    for run in runs:
        row_key = json.dumps({name: run.key[name] for name in ("model", "predictor", "training")}, sort_keys=True)
        row = rows.setdefault(row_key, [])
        column = next((each for each in columns if _shares_data(each, run)), None)
        if column is None:
            columns.append(column := [])
        place = list(rows).index(row_key), columns.index(column), run.values["seed"]
        if place in placed:
            notes.append(f"{run.path} is left out: {placed[place].path} has the same configuration, seed and data.")
            continue
        placed[place] = run
        row.append(run)
        column.append(run)
    row_names = _names([group[0].name for group in rows.values()], list(rows.values()), ("predictor", "training"))
    column_names = _names([str(group[0].values["data"]["dataset"]) for group in columns], columns, ("data",))
    results = {
        (row_names[row], column_names[column], seed): run.result
        for (row, column, seed), run in placed.items()
        if run.result is not None
    }
    grid = Grid(
        path=Path("runs"),
        title=f"Comparison of {len(placed)} runs",
        about="",
        rows=tuple(GridRow(name, "", {}) for name in row_names),
        columns=tuple(GridColumn(name, {}) for name in column_names),
        seeds=tuple(sorted({seed for _, _, seed in placed})),
        reference_row=row_names[0] if len(row_names) > 1 else None,
        reference_column=column_names[0] if len(column_names) > 1 else None,
        published={},
        source="",
    )
    return build_table(replace(grid, about=" ".join([*notes, *_unpaired(grid, results)])), results)


def _shares_data(runs: Sequence[RecordedRun], run: RecordedRun) -> bool:
    """Return whether a run fits into a column: the same choice of data, and the same tested networks of a seed."""
    if run.result is None or run.key["data"] != runs[0].key["data"]:
        return False
    same_seed = [other for other in runs if other.values["seed"] == run.values["seed"]]
    if same_seed:
        return all(other.result is not None and other.result.tested == run.result.tested for other in same_seed)
    return any(other.values["data"]["data_path"] == run.values["data"]["data_path"] for other in runs)


def _names(bases: Sequence[str], groups: Sequence[Sequence[RecordedRun]], parts: Sequence[str]) -> list[str]:
    """Return distinct names of rows or columns: the base, and the settings in which others of its base differ."""
    settings = [group[0].settings(*parts) for group in groups]
    names: list[str] = []
    for base, own in zip(bases, settings, strict=True):
        rivals = [each for other, each in zip(bases, settings, strict=True) if other == base]
        different = [name for name in differing(rivals) if name != "dataset"]
        if len(different) > 1 and "data_path" in different:
            different.remove("data_path")
        name = ", ".join(filter(None, [base, setting_text(own, different)]))
        names.append(name if name not in names else f"{name} ({sum(n.startswith(name) for n in names) + 1})")
    return names


def _unpaired(grid: Grid, results: dict[tuple[str, str, int], RunResult]) -> list[str]:
    """Return a note for each two rows, or two columns of a row, that have no seed on the same networks."""
    notes = []
    places = sorted({(row, column) for row, column, _ in results})
    for one, other in combinations(places, 2):
        shared = [seed for seed in grid.seeds if (*one, seed) in results and (*other, seed) in results]
        paired = [seed for seed in shared if results[(*one, seed)].tested == results[(*other, seed)].tested]
        if paired:
            continue
        reason = "have no seed in common" if not shared else "tested different networks"
        notes.append(f"'{' | '.join(one)}' and '{' | '.join(other)}' {reason}: no paired difference.")
    return notes
