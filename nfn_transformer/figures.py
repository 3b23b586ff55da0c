"""Figures as files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from nfn_transformer import atomic_files
from nfn_transformer.extras import MissingLibraryError, extra


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
