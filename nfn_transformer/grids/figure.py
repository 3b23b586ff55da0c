"""Figure of a table: a line of points for each row and a colour for each column, or learning curves."""

import math
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer.figures import new_figure, optional_picture, save_png
from nfn_transformer.grids.results_table import Summary, Table


@optional_picture()
def save_figure(table: Table, path: Path) -> None:
    """Write the figure (PNG) that the table's grid asks for."""
    rows, curves = len(table.grid.rows), table.grid.figure == "curves"
    figure = new_figure(*((8.5, 5.5) if curves else (7, 1.2 + 0.45 * rows)), layout="constrained")
    axes = figure.add_subplot()
    (_draw_curves if curves else _draw_dots)(axes, table)
    axes.set_title(_plain(table.grid.title), fontsize="medium")
    if curves or len(table.grid.columns) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    save_png(figure, path)


def _label(table: Table) -> str:
    seeds = f"mean and standard error over {len(table.grid.seeds)} seeds"
    return f"{table.score_name} on the test side, {seeds}" + ("; diamonds: published" if table.grid.published else "")


def _draw_dots(axes, table: Table) -> None:
    """Draw rows sorted by score, mean and standard error, with published numbers as hollow diamonds."""
    from matplotlib import colormaps

    columns = [column.name for column in table.grid.columns]
    rows = sorted((row.name for row in table.grid.rows), key=lambda name: _height(table, name))
    for index, column in enumerate(columns):
        # Columns lie a little above each other, the first one on top, so that no error bar hides another.
        offset = 0.5 * (0.5 - (index + 0.5) / len(columns)) if len(columns) > 1 else 0.0
        colour = colormaps["viridis"](0.85 * index / max(1, len(columns) - 1))
        _draw_column(axes, [table.summaries[row, column] for row in rows], column, offset, colour)
    axes.set_yticks(range(len(rows)), [_plain(row) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel(_label(table))


def _draw_curves(axes, table: Table) -> None:
    """Draw a line for each row over the number of training networks, with the reference row in front."""
    from matplotlib import colormaps

    grid = table.grid
    rows = sorted((row.name for row in grid.rows), key=lambda name: -_last(table, name))
    sizes = {column.name: _training_networks(table, column.name) for column in grid.columns}
    for index, row in enumerate(rows):
        summaries = [(sizes[column.name], table.summaries[row, column.name]) for column in grid.columns]
        drawn = [(size, s) for size, s in summaries if not math.isnan(s.mean) and not math.isnan(size)]
        points = sorted(drawn, key=lambda point: point[0])
        front = row == grid.reference_row
        axes.errorbar(
            [size for size, _ in points],
            [s.mean for _, s in points],
            yerr=[0.0 if math.isnan(s.standard_error) else s.standard_error for _, s in points],
            fmt=_MARKERS[index % len(_MARKERS)] + "-",
            color="black" if front else colormaps["tab20"](index % 20),
            linewidth=2.5 if front else 1.2,
            markersize=5,
            capsize=2,
            zorder=3 if front else 2,
            label=_plain(row),
        )
    axes.set_xscale("log")
    ticks: list[float] = []
    for size in sorted((size for size in sizes.values() if not math.isnan(size)), reverse=True):
        if not ticks or ticks[-1] > 1.15 * size:  # closer numbers would overlap
            ticks.append(size)
    axes.set_xticks(ticks, [f"{size:,.0f}" for size in ticks])
    axes.minorticks_off()
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("networks to learn from")
    axes.set_ylabel(_label(table))


_MARKERS = "osD^vP"


def _training_networks(table: Table, column: str) -> float:
    """Return the mean number of training networks of a column's finished cells; nan if there is none."""
    counts = [result.train for (_, name, _), result in table.results.items() if name == column]
    return sum(counts) / len(counts) if counts else math.nan


def _last(table: Table, row: str) -> float:
    """Return the signed mean of a row in its last column with results, by which curves are sorted; -inf without."""
    means = [table.summaries[row, column.name].mean for column in table.grid.columns]
    return next((table.sign * mean for mean in reversed(means) if not math.isnan(mean)), -math.inf)


def _draw_column(axes, summaries: Sequence[Summary], name: str, offset: float, colour) -> None:
    """Draw points and error bars of one column, a line of the figure for each row."""
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
    """Escape dollar signs, between which matplotlib reads mathematics."""
    return text.replace("$", r"\$")


def _height(table: Table, row: str) -> float:
    """Return the signed mean score of a row over its columns, by which rows are sorted; -inf without results."""
    means = [s.mean for (name, _), s in table.summaries.items() if name == row and not math.isnan(s.mean)]
    return table.sign * sum(means) / len(means) if means else -math.inf
