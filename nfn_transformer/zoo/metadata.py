"""A zoo's metadata table: the rows of an epoch that meet a condition, their labels, heads and hyperparameters."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.faults import Fault, Reason, printable, quoted
from nfn_transformer.zoo.sources import Release

FILE_COLUMN = "ckpt_file"
EPOCH_COLUMN = "ckpt_epoch"
LABEL_COLUMNS = ("test_top1_accuracy", "test_accuracy")
HEADS_COLUMN = "n_attention_heads"
SIZE_COLUMNS = ("embed_dim", HEADS_COLUMN, "n_layers", "hidden")
"""Columns that tell networks' sizes."""

NUMBERS = ("lr", "w_init_std", "l2_regularize", "train_fraction", "dropout", "epochs", *SIZE_COLUMNS[:3])
"""Columns of hyperparameters that are read as numbers."""

ZOO_OPTIMIZERS = ("adam", "rmsprop", "sgd", "sgd_momentum")
"""Values of the column `optimizer` that become one number each."""

HYPERPARAMETER_COLUMNS = (*NUMBERS, "optimizer")
HYPERPARAMETERS = (*NUMBERS, *(f"optimizer is {name}" for name in ZOO_OPTIMIZERS))
"""Names of the numbers of `encode`, in their order."""

ABSENT = -1.0
"""Number of an absent column, of an empty cell, and of one that is no number: no hyperparameter is negative."""

ALL_EPOCHS = "all"
_BEST_EPOCHS = ("best", "best1")

# Of float32; nan is not below it either.
_LARGEST = 3e38


@dataclass(frozen=True)
class Condition:
    """Condition on rows of the table, as `n_layers=2,optimizer=adam`."""

    text: str = ""
    """the condition with its columns in alphabetic order; empty where all rows are read"""
    wanted: tuple[tuple[str, str], ...] = ()
    """pairs of a column and its value, which is compared as a number where both are numbers"""

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition of a text like `n_layers=2,optimizer=adam`.

        Raises:
            ZooError: the text is of another form, or names a column twice.
        """
        parts = [part.partition("=") for part in text.split(",")] if text.strip() else []
        wanted = tuple(sorted((column.strip(), value.strip()) for column, _, value in parts))
        if not all(sign for _, sign, _ in parts) or not all(column and value for column, value in wanted):
            raise ZooError(f"--where {quoted(text)}: expected COLUMN=VALUE, or several with commas between them")
        if len(dict(wanted)) < len(wanted):
            twice = next(column for column, count in Counter(column for column, _ in wanted).items() if count > 1)
            raise ZooError(f"--where {quoted(text)}: expected each column once, got {quoted(twice)} twice")
        return cls(",".join(f"{column}={value}" for column, value in wanted), wanted)


@dataclass(frozen=True)
class TableRow:
    """A row of the table, as text."""

    name: str
    """file name of the checkpoint, or `(row N)` where the row tells none"""
    is_named: bool
    """the row tells a file name"""
    epoch: str
    """canonical epoch"""
    label: str
    """test accuracy"""
    cells: Mapping[str, str]
    """column -> text, of the columns of sizes, hyperparameters and the condition"""


@dataclass(frozen=True)
class Entry:
    """A checkpoint that the table describes well."""

    name: str
    """file name"""
    run: str
    """file name before its last two underscores, or without `.pt` where it has fewer"""
    label: float
    """test accuracy in [0, 1]"""
    heads: int | None
    """number of heads; None where the table does not tell it"""
    hyperparameters: tuple[float, ...]
    """numbers HYPERPARAMETERS"""


@dataclass(frozen=True)
class Selection:
    """Rows of one epoch that meet a condition."""

    rows: tuple[TableRow, ...]
    """the rows themselves"""
    entries: tuple[Entry, ...]
    """checkpoints that the rows describe well, by file name"""
    faults: tuple[Fault, ...]
    """the other checkpoints, by file name"""
    duplicates: tuple[str, ...]
    """file names that stand in more than one row"""
    listed: frozenset[str]
    """file names in all rows of the table"""


def select_rows(release: Release, epoch: str, condition: Condition, n_heads: int | None = None) -> Selection:
    """Return the rows of an epoch that meet a condition.

    Args:
        release: the data set, with its table.
        epoch: a number as text, `best` (the epochs best and best1), or `all`.
        condition: on the cells of a row.
        n_heads: number of heads that every row must tell that tells any.

    Raises:
        ZooError: the table is no CSV or lacks a column, no row meets the condition or has this epoch, or a row tells
            other heads.
    """
    table = _read_rows(release, condition)
    meeting = [row for row in table if all(_same(row.cells[key], value) for key, value in condition.wanted)]
    if table and not meeting:
        raise _table_error(release, f"no row where {condition.text}; {_values(table, condition)}")
    canonical = canonical_epoch(epoch)
    wanted = _BEST_EPOCHS if canonical == "best" else (canonical,)
    rows = [row for row in meeting if canonical == ALL_EPOCHS or row.epoch in wanted]
    if not rows:
        raise _table_error(release, f"no checkpoints of epoch {quoted(epoch)}; there are {_epochs(meeting)}")
    by_name: dict[str, list[TableRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    groups = sorted(by_name.items())
    described = [_describe(same) for _, same in groups]
    entries = tuple(entry for entry in described if isinstance(entry, Entry))
    if others := [entry for entry in entries if n_heads is not None and entry.heads not in (None, n_heads)]:
        first = f"that of {quoted(others[0].name)} has {HEADS_COLUMN} {others[0].heads}"
        raise _table_error(release, f"--n_heads {n_heads} contradicts {len(others)} of {len(entries)} rows; {first}")
    return Selection(
        rows=tuple(rows),
        entries=entries,
        faults=tuple(fault for fault in described if isinstance(fault, Fault)),
        duplicates=tuple(name for name, same in groups if len(same) > 1),
        listed=frozenset(row.name for row in table),
    )


def _read_rows(release: Release, condition: Condition) -> list[TableRow]:
    """Return all rows of the table, whether or not the condition is met.

    Raises:
        ZooError: the table is no UTF-8 text, no CSV, or lacks a column.
    """
    try:
        lines = csv.reader(io.StringIO(release.metadata.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(lines, [])]
        labels = [name for name in LABEL_COLUMNS if name in header]
        lacking = [quoted(name) for name in (FILE_COLUMN, EPOCH_COLUMN) if name not in header]
        lacking += [] if labels else [" or ".join(map(quoted, LABEL_COLUMNS))]
        lacking += [quoted(name) for name, _ in condition.wanted if name not in header]
        if lacking:
            names = ", ".join(map(quoted, header)) or "no columns"
            raise _table_error(release, f"no column {', no column '.join(lacking)}; there are {names}")
        columns = [FILE_COLUMN, EPOCH_COLUMN, labels[0], *SIZE_COLUMNS, *HYPERPARAMETER_COLUMNS]
        columns += [name for name, _ in condition.wanted]
        position = {name: header.index(name) for name in columns if name in header}
        rows: list[TableRow] = []
        for line in filter(None, lines):
            cells = {name: line[index].strip() if index < len(line) else "" for name, index in position.items()}
            name = re.split(r"[/\\]", cells[FILE_COLUMN])[-1]
            epoch = canonical_epoch(cells[EPOCH_COLUMN])
            rows.append(TableRow(name or f"(row {len(rows)})", bool(name), epoch, cells[labels[0]], cells))
        return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise _table_error(release, f"not a CSV table in UTF-8 ({error})") from None


def _table_error(release: Release, problem: str) -> ZooError:
    return ZooError(f"{release.source.path}: {printable(release.metadata_name)}: {problem}")


def canonical_epoch(text: str) -> str:
    """Return an epoch as one text for all ways to write it: `75.0` and `7.5e1` become `75`, `Best1` becomes `best1`."""
    number = _number(text)
    return text.strip().lower() if number is None or not number.is_integer() else str(int(number))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _same(cell: str, value: str) -> bool:
    return cell == value or ("_" not in cell + value and _number(cell) is not None and _number(cell) == _number(value))


def _values(rows: list[TableRow], condition: Condition) -> str:
    """Return the most common values of the condition's columns, for messages."""
    lists = []
    for column, _ in condition.wanted:
        counts = Counter(row.cells[column] for row in rows).most_common(20)
        lists.append(f"{quoted(column)} is {', '.join(f'{quoted(value)} ({count} rows)' for value, count in counts)}")
    return "; ".join(lists)


def _epochs(rows: list[TableRow]) -> str:
    """Return the first epochs of rows, for messages."""
    counts = Counter(row.epoch for row in rows)
    ordered = sorted(counts, key=lambda epoch: (not epoch.isdigit(), len(epoch), epoch))
    return ", ".join(f"{quoted(epoch)} ({counts[epoch]} rows)" for epoch in ordered[:20]) or "no rows"


def _describe(rows: list[TableRow]) -> Entry | Fault:
    """Return the one checkpoint that rows of one file name describe, or their fault."""
    name, cells = rows[0].name, rows[0].cells
    if not rows[0].is_named:
        return Fault(name, Reason.MISSING, f"the row has no {FILE_COLUMN}")
    labels = {_number(row.label) for row in rows}
    label = labels.pop()
    if labels:
        return Fault(name, Reason.LABEL, f"its rows contradict each other: labels {_quoted(row.label for row in rows)}")
    if label is None or not 0 <= label <= 1:
        text = f"label {rows[0].label}" if rows[0].label else "no label"
        return Fault(name, Reason.LABEL, f"{text}, expected a number in [0, 1]")
    texts = [row.cells[HEADS_COLUMN] for row in rows if row.cells.get(HEADS_COLUMN)]
    numbers = {_number(text) for text in texts}
    heads = {int(number) for number in numbers if number and number >= 1 and number.is_integer()}
    if len(numbers) > 1 or len(heads) < len(numbers):
        detail = f"{HEADS_COLUMN} is {_quoted(texts)}, expected one whole number of at least 1"
        return Fault(name, Reason.SHAPE, detail)
    run, *rest = name.rsplit("_", 2)
    run = run if len(rest) == 2 else name.removesuffix(".pt")
    return Entry(name, run, label, heads.pop() if heads else None, tuple(encode(cells)))


def _quoted(texts: Iterable[str]) -> str:
    return " and ".join(f"'{text}'" for text in sorted(set(texts)))


def encode(cells: Mapping[str, str]) -> list[float]:
    """Return the numbers HYPERPARAMETERS of a row's cells, column -> text."""
    values = [_number(cells.get(name, "")) for name in NUMBERS]
    optimizer = cells.get("optimizer", "").lower()
    named = [float(optimizer == name) if optimizer else ABSENT for name in ZOO_OPTIMIZERS]
    return [ABSENT if value is None or abs(value) >= _LARGEST else value for value in values] + named
