"""A table as one picture: a line of points for each row, a colour for each column."""

import math
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer import atomic_files
from nfn_transformer.grids.results_table import Summary, Table


def save_figure(table: Table, path: Path) -> None:
    """Write a dot plot (PNG): rows sorted by tau, mean and standard error, published numbers as hollow diamonds."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # half a second that commands without a plot need not pay

    grid = table.grid
    columns = [column.name for column in grid.columns]
    rows = sorted((row.name for row in grid.rows), key=lambda name: _height(table, name))
    figure = Figure(figsize=(7, 1.2 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, column in enumerate(columns):
        # Columns lie a little above each other, the first one on top, so that no error bar hides another.
        offset = 0.5 * (0.5 - (place + 0.5) / len(columns)) if len(columns) > 1 else 0.0
        colour = colormaps["viridis"](0.85 * place / max(1, len(columns) - 1))
        _draw_column(axes, [table.summaries[row, column] for row in rows], column, offset, colour)
    axes.set_yticks(range(len(rows)), [_plain(row) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    seeds = f"mean and standard error over {len(grid.seeds)} seeds"
    axes.set_xlabel(f"Kendall's tau on the test side, {seeds}" + ("; diamonds: published" if grid.published else ""))
    axes.set_title(_plain(grid.title), fontsize="medium")
    if len(columns) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    with atomic_files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw_column(axes, summaries: Sequence[Summary], name: str, offset: float, colour) -> None:
    """Points and error bars of one column, a line of the picture for each of its rows."""
    style = {"color": colour, "capsize": 2}
    measured = [(line + offset, s) for line, s in enumerate(summaries) if not math.isnan(s.mean)]
    axes.errorbar(
        [s.mean for _, s in measured],
        [height for height, _ in measured],
        xerr=[0.0 if math.isnan(s.standard_error) else s.standard_error for _, s in measured],
        fmt="o",
        label=_plain(name),
        **style,
    )
    for line, published in enumerate(s.published for s in summaries):
        if published is not None:
            error = published.standard_error
            axes.errorbar(published.mean, line + offset, xerr=error, fmt="D", markerfacecolor="white", **style)


def _plain(text: str) -> str:
    """Text as it stands: between two dollar signs matplotlib would read mathematics."""
    return text.replace("$", r"\$")


def _height(table: Table, row: str) -> float:
    """Mean tau of a row over its columns, by which rows are sorted; rows without any go to the bottom."""
    means = [s.mean for (name, _), s in table.summaries.items() if name == row and not math.isnan(s.mean)]
    return sum(means) / len(means) if means else -math.inf
