"""Array zoos: the Small CNN Zoo (Unterthiner et al. 2020, arXiv 2002.11448), and made ones in its layout.

A folder holds three files. `weights.npy` [n, P] has a row for each checkpoint, and `layout.csv` the place of each
variable in a row. `metrics.csv.gz` or `metrics.csv` is the table. Variables are in the order of TensorFlow: kernels
[h, w, in, out] or [in, out]. Rows become the state dict of PyTorch: [out, in, h, w] or [out, in].
"""

import csv
import gzip
import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, cast

import numpy as np

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.zoo.array_layout import Layout, parse_layout
from nfn_transformer.zoo.checkpoint import Outcome
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.formats.registry import ZooFormat, register_format
from nfn_transformer.zoo.listing import (
    ListedNetwork,
    Listing,
    ReadRequest,
    chosen_checkpoints,
    refuse_flags,
    told_facts,
)
from nfn_transformer.zoo.metadata import LABEL_COLUMNS, encode, same_value
from nfn_transformer.zoo.network_facts import FACTS, network_facts
from nfn_transformer.zoo.runs import canonical_epoch
from nfn_transformer.zoo.sources import DAMAGE, Source, UnreadableFile

WEIGHTS, LAYOUT, METRICS = "weights.npy", "layout.csv", ("metrics.csv.gz", "metrics.csv")

FACTS_OF_THE_ZOO = {"activation": "relu", "stride": "2", "padding": "0"}
"""Facts of networks whose table does not tell them: the Small CNN Zoo's."""

MOST_BYTES = 64 * 2**30
MOST_ROWS = 2_000_000
MOST_METRICS_BYTES = 2**30
MOST_LAYOUT_BYTES = 2**20

_MOST_DATASETS = 100
_BLOCK_BYTES = 32 * 2**20

_RUN_COLUMNS = ("run", "modeldir")
_HYPERPARAMETERS = {"learning_rate": "lr", "l2reg": "l2_regularize", "init_std": "w_init_std"}
"""Names of columns after `config.` -> those of `metadata.encode`; others have the same name."""

_DAMAGE = (UnreadableFile, *DAMAGE, csv.Error)


class _Bounded(io.RawIOBase):
    """Stream that fails beyond so many bytes: a small archive could hold any number."""

    def __init__(self, stream: BinaryIO, most: int):
        self._stream, self._left = stream, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        content = self._stream.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("is larger than the table of any zoo")
        buffer[: len(content)] = content
        return len(content)


def _read_table(source: Source, name: str, wanted: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], int]:
    """Return role -> cells [n] of those columns that are there, and n.

    Args:
        source: place of the table.
        name: path of the table, gzipped where it ends in .gz.
        wanted: role -> names of its column, the first one counts.

    Raises:
        _DAMAGE: the table is damaged or too large.
    """
    with source.open(name, MOST_METRICS_BYTES) as file:
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if name.endswith(".gz") else file
        text = io.TextIOWrapper(io.BufferedReader(_Bounded(stream, MOST_METRICS_BYTES)), "utf-8-sig", newline="")
        lines = csv.reader(text)
        header = [cell.strip() for cell in next(lines, [])]
        position = {}
        for role, names in wanted.items():
            there = [header.index(each) for each in names if each in header]
            if there:
                position[role] = there[0]
        columns: dict[str, list[str]] = {role: [] for role in position}
        memo: dict[str, str] = {}  # a cell's text is kept once: most of them are hyperparameters
        pairs, count = [(columns[role].append, index) for role, index in position.items()], 0
        for line in filter(None, lines):
            count += 1
            if count > MOST_ROWS:
                raise ValueError(f"more than {MOST_ROWS} rows")
            for append, index in pairs:
                cell = line[index].strip() if index < len(line) else ""
                append(memo.setdefault(cell, cell))
    if lacking := [role for role in wanted if role not in position and role[0] == "!"]:
        listed = ", ".join(map(quoted, header[:40])) or "no columns"
        hint = "; --label_column names another, --task classify reads 'label'" if "!label" in lacking else ""
        raise ValueError(f"no column {' or '.join(map(quoted, wanted[lacking[0]]))}; there are {listed}{hint}")
    return columns, count


def _folder_of(source: Source, dataset: str) -> str | None:
    """Return the prefix of a data set's files within a source: "", or its folder and a slash; None for none."""
    return next((prefix for prefix in (f"{dataset}/", "") if source.has(f"{prefix}{WEIGHTS}")), None)


def _recognize(source: Source, dataset: str) -> bool:
    return _folder_of(source, dataset) is not None or bool(_datasets(source))


def _datasets(source: Source) -> list[str]:
    return [name for name in source.entries()[:_MOST_DATASETS] if source.has(f"{name}/{WEIGHTS}")]


def _list(source: Source, request: ReadRequest) -> Listing:
    """Return the chosen rows of an array zoo; see `ReadRequest`.

    Raises:
        ZooError: a file is missing or damaged, or no row is chosen.
    """
    own = {"file_column": request.columns.file, "weights_key": request.weights_key}
    refuse_flags("a zoo of arrays", own)
    folder = _folder_of(source, request.dataset)
    if folder is None:
        there = ", ".join(map(quoted, _datasets(source)))
        raise ZooError(f"{source.path}: no data set {quoted(request.dataset)}; there are {there} (--dataset)")
    stamps = source.files(folder.rstrip("/"))
    metrics = next((folder + name for name in METRICS if folder + name in stamps), None)
    for name, path in ((LAYOUT, folder + LAYOUT), (" or ".join(METRICS), metrics)):
        if path not in stamps:
            raise ZooError(f"{source.path}: {quoted(folder + WEIGHTS)} is there, expected {name} beside it")
    assert metrics is not None
    place = f"{source.path}: {printable(metrics)}"
    layout = _checked_layout(source, folder + LAYOUT)
    columns, count = _checked_table(source, metrics, request)
    names = [(column, value) for column, value in request.condition.wanted]
    meeting = [
        row for row in range(count) if all(same_value(columns[f"!{column}"][row], value) for column, value in names)
    ]
    if not meeting:
        there = "; ".join(
            f"{quoted(c)} is {', '.join(map(quoted, sorted(set(columns[f'!{c}']))[:20]))}" for c, _ in names
        )
        raise ZooError(f"{place}: no row where {request.condition.text}; {there}")
    runs, runs_are_told = _runs(columns, count)
    epochs = [canonical_epoch(text) for text in columns.get("epoch", ["0"] * count)]
    labels = columns.get("!label")
    copies = columns.get("copy", [""] * count)
    chosen, notes = chosen_checkpoints(
        [f"{runs[row]} {copies[row]}" for row in meeting],
        [epochs[row] for row in meeting],
        request.epoch,
        None if labels is None else [labels[row] for row in meeting],
        place,
    )
    rows = [meeting[position] for position in chosen]
    if not runs_are_told and len({epochs[row] for row in rows}) > 1:
        raise ZooError(
            f"{place}: --ckpt_epoch {request.epoch}: expected a column 'run', or each network's rows one after another "
            "by step; --run_column COLUMN names a column that tells it"
        )
    facts = _facts(columns, rows, layout, request, place)
    hyperparameters = _hyperparameters(columns, rows)
    networks = [
        ListedNetwork(f"row{row}", runs[row], epochs[row], labels[row] if labels else "", told, numbers)
        for row, told, numbers in zip(rows, facts, hyperparameters, strict=True)
    ]
    files = [folder + WEIGHTS, folder + LAYOUT, metrics]
    fingerprint = hashlib.sha256(repr((source.stamp, [(name, stamps[name]) for name in files])).encode()).hexdigest()
    return Listing(
        networks,
        lambda: _outcomes(source, folder + WEIGHTS, layout, rows, count),
        fingerprint,
        runs_are_told=runs_are_told,
        notes=notes,
    )


def _checked_layout(source: Source, name: str) -> Layout:
    try:
        with source.open(name, MOST_LAYOUT_BYTES) as file:
            content = file.read(MOST_LAYOUT_BYTES)
        return parse_layout(content.decode("utf-8-sig"))
    except _DAMAGE as error:
        raise ZooError(f"{source.path}: {printable(name)}: {printable(str(error))}") from None


def _checked_table(source: Source, name: str, request: ReadRequest) -> tuple[dict[str, list[str]], int]:
    """Return the cells of the columns that a request reads, and the number of rows; needed roles begin with `!`."""
    columns = request.columns
    wanted: dict[str, Sequence[str]] = {
        "epoch" if columns.epoch is None else "!epoch": (columns.epoch or "step",),
        "run" if columns.run is None else "!run": (columns.run,) if columns.run else _RUN_COLUMNS,
        "copy": ("copy",),
        **{f"!{column}": (column,) for column, _ in request.condition.wanted},
        **{f"fact {fact}": (f"config.{fact}", fact) for fact in FACTS},
    }
    if request.labels != "none":
        wanted["!label"] = (columns.label,) if columns.label else LABEL_COLUMNS[request.labels]
    for column in ("optimizer", "dropout", "train_fraction", "epochs", "lr", "l2_regularize", *_HYPERPARAMETERS):
        wanted[f"config {_HYPERPARAMETERS.get(column, column)}"] = (f"config.{column}",)
    try:
        table, count = _read_table(source, name, wanted)
    except _DAMAGE as error:
        raise ZooError(f"{source.path}: {printable(name)}: {printable(str(error))}") from None
    return {role if role not in ("!epoch", "!run") else role[1:]: cells for role, cells in table.items()}, count


def _runs(columns: Mapping[str, list[str]], count: int) -> tuple[list[str], bool]:
    """Return the run of each row, and whether rows tell it: by a column, or by steps that rise within a network.

    A column that names each row otherwise tells no runs where steps do: the checkpoints of a network are one run.
    """
    named = columns.get("run")
    steps = columns.get("epoch", [])
    numbers = [float(step) if step.replace(".", "", 1).isdecimal() else -1.0 for step in steps]
    starts = [row for row in range(len(numbers)) if row == 0 or numbers[row] <= numbers[row - 1]]
    lengths = {end - start for start, end in itertools.pairwise([*starts, len(numbers)])}
    is_regular = len(lengths) == 1
    if named is not None and not (is_regular and lengths != {1} and len(set(named)) == count):
        return named, True
    if not is_regular:
        return [f"row{row}" for row in range(count)], False
    length = lengths.pop()
    return [f"network{row // length}" for row in range(count)], True


def _facts(
    columns: Mapping[str, list[str]], rows: Sequence[int], layout: Layout, request: ReadRequest, place: str
) -> Iterable[tuple[tuple[str, object], ...]]:
    """Return the facts of each chosen row, as `ListedNetwork` has them."""
    told = {fact: columns[f"fact {fact}"] for fact in FACTS if f"fact {fact}" in columns}
    memo: dict[tuple[str, ...], tuple[tuple[str, object], ...]] = {}
    facts = []
    for row in rows:
        texts = tuple(cells[row] for cells in told.values())
        if texts not in memo:
            cells = {name: "0" if text == "valid" else text for name, text in zip(told, texts, strict=True)}
            try:
                values = network_facts(told_facts(cells), request.facts, FACTS_OF_THE_ZOO)
            except UserError as error:
                raise ZooError(f"{place}: row {row}: {error}") from None
            if not layout.convolutions:
                values = {name: value for name, value in values.items() if name not in ("strides", "paddings")}
            memo[texts] = tuple(sorted(values.items()))
        facts.append(memo[texts])
    return facts


def _hyperparameters(columns: Mapping[str, list[str]], rows: Sequence[int]) -> Iterable[tuple[float, ...]]:
    told = {role.removeprefix("config "): cells for role, cells in columns.items() if role.startswith("config ")}
    return [tuple(encode({name: cells[row] for name, cells in told.items()})) for row in rows]


def _outcomes(source: Source, name: str, layout: Layout, rows: Sequence[int], count: int) -> Iterator[Outcome]:
    """Yield the outcome of reading each of some rows, ascending, of an array with `count` of them.

    A folder's file is mapped into memory; a zip's is read once, block by block.

    Raises:
        ZooError: the file is damaged, or not as table and layout say.
    """
    shapes = tuple(layout.shapes.items())
    try:
        with source.open(name, MOST_BYTES) as file:
            for position, block in _blocks(file, rows, len(layout.columns), count):
                with np.errstate(over="ignore"):  # what is too large becomes infinite, and a fault
                    numbers = block[:, layout.columns].astype(np.float32)
                finite = np.asarray(np.isfinite(numbers).all(axis=1)).tolist()
                for row, values, is_finite in zip(rows[position : position + len(block)], numbers, finite, strict=True):
                    if is_finite:
                        yield Outcome(None, shapes=shapes, row=values)
                    else:
                        yield Outcome(Fault(f"row{row}", Reason.NOT_FINITE, "holds NaN or Inf"))
    except _DAMAGE as error:
        raise ZooError(f"{source.path}: {printable(name)}: {printable(str(error))}") from None


def _blocks(file: BinaryIO, rows: Sequence[int], width: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield blocks [m, width] of some rows, each with the position of its first row among `rows`.

    Raises:
        ValueError: the header is not that of such an array, or rows are missing.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of .npy, expected 1.0 or 2.0")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, is_fortran, dtype = read_header(file)
    except Exception as error:  # Python's own parser fails in more ways than NumPy documents
        raise ValueError(f"a damaged header ({type(error).__name__})") from None
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8) or is_fortran:
        raise ValueError(f"an array of {dtype}{' by columns' if is_fortran else ''}, expected floating point by rows")
    if shape != (count, width):
        raise ValueError(f"an array of shape {shape}, expected {count} rows of the table and {width} numbers")
    step = max(1, _BLOCK_BYTES // (width * dtype.itemsize))
    try:
        handle, start = file.fileno(), file.tell()
    except (OSError, AttributeError):
        handle = None
    if handle is not None:
        if (size := os.fstat(handle).st_size) < start + count * width * dtype.itemsize:
            raise ValueError(f"truncated: {size} bytes, expected {start + count * width * dtype.itemsize}")
        array = np.memmap(file, dtype, "r", start, shape)
        for position in range(0, len(rows), step):
            yield position, array[np.asarray(rows[position : position + step])]
        return
    chosen, position = np.asarray(rows), 0
    for first in range(0, count, step):
        size = min(step, count - first) * width * dtype.itemsize
        content = file.read(size)
        if len(content) != size:
            raise ValueError(f"truncated after row {first + len(content) // (width * dtype.itemsize)} of {count}")
        inside = chosen[(chosen >= first) & (chosen < first + step)] - first
        if len(inside):
            yield position, np.frombuffer(content, dtype).reshape(-1, width)[inside]
            position += len(inside)


register_format(
    ZooFormat(
        name="array zoo",
        files="weights.npy, layout.csv and metrics.csv.gz, at the top or in a folder DATASET",
        recognize=_recognize,
        list=_list,
    )
)
