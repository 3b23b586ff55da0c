"""A table as Markdown, LaTeX and CSV."""

import math
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer import atomic_files
from nfn_transformer.grids.figure import save_figure
from nfn_transformer.grids.grid_file import Published
from nfn_transformer.grids.results_table import Summary, Table
from nfn_transformer.training.results import FEW, RunResult

DASH = "\N{EN DASH}"


def write_table(table: Table, folder: Path, command: str, problems: Sequence[str]) -> str:
    """Write a table in all its forms; return its Markdown, and where the files are, for the screen.

    Args:
        table: to write.
        folder: of the files; made if needed.
        command: command line that makes the table.
        problems: what is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(table, command, problems)
    atomic_files.write_text(folder / "table.md", text)
    atomic_files.write_text(folder / "table.tex", latex(table))
    atomic_files.write_csv(folder / "table.csv", summary_header(table), summary_rows(table))
    atomic_files.write_csv(folder / "cells.csv", cell_header(table), cell_rows(table))
    save_figure(table, folder / "figure.png")
    figure = ", figure.png" if (folder / "figure.png").is_file() else ""
    return f"{text}\nwritten to {folder}: table.md, table.tex, table.csv, cells.csv{figure}"


def markdown(table: Table, command: str, problems: Sequence[str]) -> str:
    """Return the table with its legend, the comparisons, and the list of what is missing."""
    grid = table.grid
    lines = [f"# {grid.title}", "", *([grid.about, ""] if grid.about else []), f"    {command}", ""]
    lines += _markdown_rows(["", *(column.name for column in grid.columns)], _body(table, _markdown_cell))
    lines += ["", *_legend(table), ""]
    if costs := _cost_rows(table):
        lines += ["## Costs", "", *costs, "", _OF_COSTS, ""]
    if table.comparisons:
        compared = f"Difference of {table.score_name} on the same splits, {_COMPARED}"
        lines += ["## Paired comparisons over seeds", "", *_comparison_rows(table), "", compared, ""]
    if problems:
        lines += ["## Missing", "", *(f"- {_escaped(problem)}" for problem in problems), ""]
    return "\n".join(lines)


_COMPARED = (
    "with its 95 % interval and p by the corrected resampled t-test "
    "(Nadeau and Bengio 2003), which allows for the networks that splits share; p is not corrected "
    "for the number of comparisons."
)


def _body(table: Table, cell) -> list[list[str]]:
    return [
        [row.name, *(cell(table, table.summaries[row.name, column.name]) for column in table.grid.columns)]
        for row in table.grid.rows
    ]


def _markdown_rows(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [header, ["---"] * len(header), *body]
    return ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _number(mean: float, error: float | None, decimals: int) -> str:
    if math.isnan(mean):
        return "nan"
    text = f"{mean:.{decimals}f}"
    return text if error is None or math.isnan(error) else f"{text} ± {error:.{decimals}f}"


def _published(published: Published | None, decimals: int) -> str:
    return DASH if published is None else _number(published.mean, published.standard_error, decimals)


def _marks(table: Table, summary: Summary) -> str:
    marks = [f"{summary.seeds} of {len(table.grid.seeds)} seeds"] if summary.seeds < len(table.grid.seeds) else []
    marks += [f"{table.score_key} undefined in {summary.undefined}"] if summary.undefined else []
    marks += [f"{summary.stopped} stopped early"] if summary.stopped else []
    return f" [{', '.join(marks)}]" if marks else ""


def _markdown_cell(table: Table, summary: Summary) -> str:
    text = DASH if not summary.seeds else _number(summary.mean, summary.standard_error, table.decimals)
    text = f"**{text}**" if summary.best else text
    beside = f" ({_published(summary.published, table.decimals)})" if table.grid.published else ""
    return text + _marks(table, summary) + beside


def _legend(table: Table) -> list[str]:
    grid = table.grid
    seeds = ", ".join(map(str, grid.seeds))
    machines = ", ".join(sorted({result.machine for result in table.results.values() if result.machine}))
    networks, few = [], False
    for column in grid.columns:
        tests = sorted({result.test for (_, name, _), result in table.results.items() if name == column.name})
        networks.append(f"{column.name} {'/'.join(map(str, tests)) or DASH}")
        few |= any(count < FEW for count in tests)
    score = f"{table.score_name[0].upper()}{table.score_name[1:]}"
    text = (
        f"{score} on the test side, mean ± standard error over seeds {seeds}; best of a column in bold. "
        f"Test networks: {', '.join(networks)}. "
    )
    if few:
        text += f"Warning: fewer than {FEW} test networks, which tell little. "
    if grid.published:
        text += f"In parentheses: published ({grid.source}); {DASH}: no published number is at hand."
    else:
        text += "No published numbers are at hand."
    return [text + (f" Run on {machines}." if machines else "")]


def _comparison_rows(table: Table) -> list[str]:
    spec = f"+.{table.decimals}f"
    body = [
        [
            comparison.within,
            f"{comparison.name} minus {comparison.reference}",
            f"{comparison.difference:{spec}}",
            DASH if math.isnan(comparison.low) else f"[{comparison.low:{spec}}, {comparison.high:{spec}}]",
            DASH if math.isnan(comparison.p) else f"{comparison.p:.3f}",
            f"{comparison.wins} of {comparison.seeds}",
        ]
        for comparison in table.comparisons
    ]
    return _markdown_rows(["where", "what", "difference", "95 % interval", "p", "seeds above 0"], body)


_OF_COSTS = (
    "Seconds of training and validation are medians of epochs; what ran beside a cell counts. Peak memory is "
    "of PyTorch's tensors on a GPU; elsewhere, and for trees, of the whole process, libraries included."
)


def _cost_rows(table: Table) -> list[str]:
    """Return parameters, seconds an epoch and peak memory of the rows, as ranges over columns and seeds.

    A row whose costs are all unknown is left out.
    """
    body = []
    for row in table.grid.rows:
        results = [result for (name, _, _), result in table.results.items() if name == row.name]
        counts = [result.parameters for result in results if result.parameters]
        seconds = [result.epoch_seconds for result in results if not math.isnan(result.epoch_seconds)]
        peaks = [result.peak_mib for result in results if not math.isnan(result.peak_mib)]
        if counts or peaks:
            body.append([row.name, _range(counts, ","), _range(seconds, ".2g"), _range(peaks, ",.0f")])
    return _markdown_rows(["", "parameters", "seconds an epoch", "peak memory (MiB)"], body) if body else []


def _range(numbers: Sequence[float], spec: str) -> str:
    ends = [f"{number:{spec}}" for number in (min(numbers), max(numbers))] if numbers else [DASH]
    return " to ".join(dict.fromkeys(ends))


def latex(table: Table) -> str:
    """Return a LaTeX tabular for a paper, which needs the package booktabs."""
    grid = table.grid
    header = " & ".join(["", *(_latex_text(column.name) for column in grid.columns)])
    body = [" & ".join([_latex_text(row[0]), *row[1:]]) + r" \\" for row in _body(table, _latex_cell)]
    lines = [
        f"% {grid.title}: {table.score_name}, mean and standard error over {len(grid.seeds)} seeds",
        r"% Needs \usepackage{booktabs}.",
        rf"\begin{{tabular}}{{l{'c' * len(grid.columns)}}}",
        r"\toprule",
        header + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_number(text: str) -> str:
    return "--" if text == DASH else f"${text.replace('±', chr(92) + 'pm')}$" if text != "nan" else "nan"


def _latex_cell(table: Table, summary: Summary) -> str:
    text = DASH if not summary.seeds else _number(summary.mean, summary.standard_error, table.decimals)
    shown = _latex_number(text)
    shown = rf"\boldmath{shown}" if summary.best else shown
    shown = rf"{{{shown}}}" if summary.best else shown
    beside = f" ({_latex_number(_published(summary.published, table.decimals))})" if table.grid.published else ""
    return shown + _latex_text(_marks(table, summary)) + beside


def _latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)


def summary_header(table: Table) -> list[str]:
    """Return the names of the columns of `summary_rows`."""
    score = table.score_key
    return [
        "row", "column", f"{score}_mean", f"{score}_standard_error", "seeds", "undefined", "stopped_early", "best",
        "published_mean", "published_standard_error",
    ]  # fmt: skip


def summary_rows(table: Table) -> list[list]:
    """Return a CSV row for each row and column of the table; absent values are empty."""
    rows = []
    for (row, column), s in table.summaries.items():
        published = [None, None] if s.published is None else [s.published.mean, s.published.standard_error]
        rows.append(
            [row, column, _blank(s.mean), _blank(s.standard_error), s.seeds, s.undefined, s.stopped, s.best, *published]
        )
    return rows


def cell_header(table: Table) -> list[str]:
    """Return the names of the columns of `cell_rows`."""
    score = table.score_key
    return [
        "row", "column", "seed", score, f"{score}_low", f"{score}_high", "r2", "mae", f"validation_{score}",
        "train_networks", "test_networks", "status", "parameters", "epoch_seconds", "peak_mib",
    ]  # fmt: skip


def cell_rows(table: Table) -> list[list]:
    """Return a CSV row for each finished cell."""
    return [[*cell, *(_blank(value) for value in _values(result))] for cell, result in table.results.items()]


def _values(result: RunResult) -> list:
    return [
        result.score, result.low, result.high, result.r2, result.mae, result.validation_score, result.train,
        result.test, result.status, result.parameters or None, result.epoch_seconds, result.peak_mib,
    ]  # fmt: skip


def _blank(value):
    return None if isinstance(value, float) and math.isnan(value) else value
