"""Figures as files."""

from pathlib import Path

from nfn_transformer import atomic_files


def save_png(figure, path: Path, dpi: int = 150) -> None:
    """Write a matplotlib figure as a PNG in one step."""
    with atomic_files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
