"""Figures as files."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from nfn_transformer import atomic_files
from nfn_transformer.extras import MissingLibraryError, extra


def new_figure(width: float, height: float, **layout):
    """Return an empty matplotlib figure of so many inches, which is drawn for a file and never shown.

    Matplotlib takes half a second, and is imported here for the commands that draw.
    """
    chosen, is_first = os.environ.pop("MPLBACKEND", None), "matplotlib" not in sys.modules
    try:  # the import fails where a notebook names a backend of another environment
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
    if chosen is not None and is_first:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = chosen  # for figures that the user may show
    figure = Figure(figsize=(width, height), **layout)
    FigureCanvasAgg(figure)
    return figure


def save_png(figure, path: Path, dpi: int = 150) -> None:
    """Write a matplotlib figure as a PNG in one step."""
    with atomic_files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


@contextmanager
def optional_picture() -> Iterator[None]:
    """Draw a picture beside results, which are complete without it: where matplotlib is missing, say so on stderr."""
    try:
        with extra("plots", "a picture beside the results"):
            yield
    except MissingLibraryError as error:
        _note(str(error))


@cache
def _note(text: str) -> None:
    """Print a note on stderr, once."""
    print(f"note: {text}", file=sys.stderr)
