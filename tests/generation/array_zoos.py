"""Reading of array zoos by the tests' own means."""

import csv
import gzip
import io
import re
from pathlib import Path

import numpy as np


def read_arrays(folder: Path) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    """Return the variables of an array zoo, name -> [n, *shape], and its table."""
    rows = np.load(folder / "weights.npy")
    variables = {}
    for line in csv.DictReader(io.StringIO((folder / "layout.csv").read_text())):
        shape = tuple(map(int, re.findall(r"\d+", line["shape"])))
        start, end = int(line["start_idx"]), int(line["end_idx"])
        variables[line["varname"].removeprefix("sequential/")] = rows[:, start:end].reshape(-1, *shape)
    table = gzip.decompress((folder / "metrics.csv.gz").read_bytes()).decode()
    return variables, list(csv.DictReader(io.StringIO(table)))
