"""Reading of made zoos: arrays by the tests' own means, and any by the command that the maker prints."""

import csv
import gzip
import io
import re
import shlex
from pathlib import Path

import numpy as np

import nfn_transformer as nfn
from nfn_transformer import main
from nfn_transformer.training.tasks import TASKS


def read_as_printed(printed: str) -> nfn.Zoo:
    """Read the zoo with the flags of the command on the last line that the maker printed."""
    start, program, *flags = shlex.split(printed.splitlines()[-1])
    assert (start, program) == ("python", "nfn_transformer/main.py")
    data = main.run_config(main.build_parser().parse_args(flags)).data
    return nfn.read_zoo(data.data_path, data.dataset, data.ckpt_epoch, labels=TASKS[data.task].labels, progress=False)


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
