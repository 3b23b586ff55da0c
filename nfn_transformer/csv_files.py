"""Tables as CSV; floats keep all their digits."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from nfn_transformer import atomic_files


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table as CSV with a header and lines that end in a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as a CSV file in one step."""
    atomic_files.write_text(path, csv_text(header, rows))
