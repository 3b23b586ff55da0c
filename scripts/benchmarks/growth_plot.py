"""A picture of how a training step's time grows."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from nfn_transformer.figures import save_png

_FEW, _MARKERS = 4, "osD^v"


def plot_growth(
    path: Path, widths: Sequence[int], seconds: Mapping[str, Sequence[Sequence[float]]], title: str
) -> None:
    """Write a plot (PNG) of time against D, both logarithmic: medians as points, ranges as bars; the slowest first.

    Args:
        path: of the picture.
        widths: the values of D.
        seconds: by the name of a way, its measurements at each D.
        title: of the picture.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    many = len(seconds) > _FEW
    figure = Figure(figsize=(7.5, 5) if many else (5, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    slowest_first = sorted(seconds.items(), key=lambda item: -statistics.median(item[1][-1]))
    for place, (name, of_widths) in enumerate(slowest_first):
        colour = colormaps["viridis"](0.85 * place / max(1, len(seconds) - 1))
        middles = [1000 * statistics.median(values) for values in of_widths]
        below = [middle - 1000 * min(values) for middle, values in zip(middles, of_widths, strict=True)]
        above = [1000 * max(values) - middle for middle, values in zip(middles, of_widths, strict=True)]
        axes.errorbar(
            widths,
            middles,
            yerr=(below, above),
            fmt=f"{_MARKERS[place % len(_MARKERS)]}-",
            capsize=2,
            color=colour,
            label=name,
        )
    axes.set_xticks(widths, list(map(str, widths)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("D")
    axes.set_ylabel("milliseconds, median and range")
    axes.set_title(title, fontsize="medium")
    outside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if many else {}
    axes.legend(frameon=False, **outside)
    save_png(figure, path)
