"""A zoo's metadata table: which checkpoints belong to an epoch, their labels, runs and heads."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.conditions import Condition
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.hyperparameters import ABSENT, HYPERPARAMETERS, encode, places
from nfn_transformer.zoo.printing import quoted

FILE_COLUMN = "ckpt_file"
EPOCH_COLUMN = "ckpt_epoch"
LABEL_COLUMNS = ("test_top1_accuracy", "test_accuracy")
HEADS_COLUMN = "n_attention_heads"

ALL_EPOCHS = "all"
EVERY_ROW = Condition()
_BEST_EPOCHS = ("best", "best1")


@dataclass(frozen=True)
class Row:
    """A row of the table, as text: file name of the checkpoint, epoch, label and number of heads; its cells in the
    columns of the condition that it was read with, and in those of `hyperparameters.COLUMNS`."""

    name: str
    epoch: str
    label: str
    heads: str
    cells: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A checkpoint that the table describes well: file name, label in [0, 1], heads where it tells them, and the
    numbers `hyperparameters.HYPERPARAMETERS`."""

    name: str
    label: float
    heads: int | None
    hyperparameters: tuple[float, ...] = (ABSENT,) * len(HYPERPARAMETERS)

    @property
    def run(self) -> str:
        """The run that the checkpoint belongs to."""
        return run_id(self.name)


@dataclass(frozen=True)
class Selection:
    """The distinct rows of one epoch, by file name: good ones, faulty ones, and names that stand twice."""

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]
    duplicates: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of distinct rows."""
        return len(self.entries) + len(self.faults)


def run_id(name: str) -> str:
    """The file name before its last two underscores, or without `.pt` where it has fewer."""
    parts = name.rsplit("_", 2)
    return parts[0] if len(parts) == 3 else name.removesuffix(".pt")


def read_header(content: bytes, where: str) -> list[str]:
    """The names of a metadata table's columns.

    Raises:
        ZooError: it is no UTF-8 text, or no CSV.
    """
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        return [name.strip() for name in next(lines, [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(where, error) from None


def _no_table(where: str, error: Exception) -> ZooError:
    return ZooError(f"{where}: not a CSV table in UTF-8 ({error})")


def read_rows(content: bytes, where: str, condition: Condition = EVERY_ROW) -> list[Row]:
    """The rows of a metadata table, whether or not the condition holds.

    Args:
        content: the CSV file.
        where: its name, for messages.
        condition: the columns that it names are read too.

    Raises:
        ZooError: it is no UTF-8 text, no CSV, or lacks a column.
    """
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(lines, [])]
        file, epoch, label, heads = _columns(header, where)
        further, settings = condition.places(header, where), places(header)
        return [
            Row(
                re.split(r"[/\\]", _cell(line, file))[-1],
                canonical_epoch(_cell(line, epoch)),
                _cell(line, label),
                _cell(line, heads),
                tuple(_cell(line, column) for column in further),
                tuple(_cell(line, column) for column in settings),
            )
            for line in lines
            if line
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(where, error) from None


def _columns(header: list[str], where: str) -> tuple[int, int, int, int | None]:
    label = next((name for name in LABEL_COLUMNS if name in header), None)
    lacking = [f"'{name}'" for name in (FILE_COLUMN, EPOCH_COLUMN) if name not in header]
    if label is None:
        lacking.append(" or ".join(f"'{name}'" for name in LABEL_COLUMNS))
    if label is None or lacking:
        there = ", ".join(quoted(name) for name in header) or "no columns"
        raise ZooError(f"{where}: no column {', no column '.join(lacking)}; there are {there}")
    heads = header.index(HEADS_COLUMN) if HEADS_COLUMN in header else None
    return header.index(FILE_COLUMN), header.index(EPOCH_COLUMN), header.index(label), heads


def _cell(line: list[str], column: int | None) -> str:
    return line[column].strip() if column is not None and column < len(line) else ""


def canonical_epoch(text: str) -> str:
    """An epoch as one text for all ways to write it: `75`, `75.0` and `7.5e1` are `75`, `Best1` is `best1`."""
    try:
        number = float(text)
    except ValueError:
        return text.strip().lower()
    return str(int(number)) if math.isfinite(number) and number.is_integer() else text.strip().lower()


def is_of_epoch(row: Row, epoch: str) -> bool:
    """Whether a row is of an epoch: a number as text, `best` (the epochs best and best1), or `all`."""
    wanted = canonical_epoch(epoch)
    return wanted == ALL_EPOCHS or row.epoch in (_BEST_EPOCHS if wanted == "best" else (wanted,))


def select_epoch(rows: Iterable[Row], epoch: str, where: str, condition: Condition = EVERY_ROW) -> Selection:
    """The distinct rows of an epoch that meet a condition, by file name.

    Args:
        rows: the table's rows.
        epoch: a number as text, `best` (the epochs best and best1), or `all`.
        where: the table's name, for messages.
        condition: that the rows were read with.

    Raises:
        ZooError: no row meets the condition, or has this epoch; the message lists what is there.
    """
    every_row = list(rows)
    rows = [row for row in every_row if condition.holds(row.cells)]
    if every_row and not rows:
        raise ZooError(f"{where}: no row where {condition}; {_values_there(every_row, condition)}")
    by_name: dict[str, list[Row]] = {}
    for number, row in enumerate(rows):
        if is_of_epoch(row, epoch):
            by_name.setdefault(row.name or f"(row {number})", []).append(row)
    if not by_name:
        raise ZooError(f"{where}: no checkpoints of epoch {quoted(epoch)}; there are {_epochs_there(rows)}")
    good, faults = [], []
    for name, same in sorted(by_name.items()):
        entry = _entry(name, same)
        (good if isinstance(entry, Entry) else faults).append(entry)
    duplicates = tuple(name for name, same in sorted(by_name.items()) if len(same) > 1)
    return Selection(tuple(good), tuple(faults), duplicates)


def _values_there(rows: list[Row], condition: Condition) -> str:
    lists = []
    for place, (column, _) in enumerate(condition.wanted):
        counts = Counter(row.cells[place] for row in rows).most_common(20)
        lists.append(f"{quoted(column)} is {', '.join(f'{quoted(value)} ({count} rows)' for value, count in counts)}")
    return "; ".join(lists)


def _epochs_there(rows: list[Row]) -> str:
    counts = Counter(row.epoch for row in rows)
    ordered = sorted(counts, key=lambda epoch: (not epoch.isdigit(), len(epoch), epoch))
    return ", ".join(f"{quoted(epoch)} ({counts[epoch]} rows)" for epoch in ordered[:20]) or "no rows"


def _entry(name: str, rows: list[Row]) -> Entry | Fault:
    """The one checkpoint that these rows of one file name describe, or what is wrong with them."""
    if not rows[0].name:
        return Fault(name, Reason.MISSING, f"the row has no {FILE_COLUMN}")
    labels = {_number(row.label) for row in rows}
    label = labels.pop()
    if labels:
        return Fault(name, Reason.LABEL, f"its rows contradict each other: labels {_quoted(row.label for row in rows)}")
    if label is None or not 0 <= label <= 1:
        found = f"label {rows[0].label}" if rows[0].label else "no label"
        return Fault(name, Reason.LABEL, f"{found}, expected a number in [0, 1]")
    told = [row.heads for row in rows if row.heads]
    heads = {_number(text) for text in told}
    if len(heads) > 1 or not all(number and number >= 1 and number.is_integer() for number in heads):
        return Fault(name, Reason.SHAPE, f"{HEADS_COLUMN} is {_quoted(told)}, expected one whole number of at least 1")
    return Entry(name, label, int(heads.pop()) if heads else None, tuple(encode(rows[0].settings)))


def _quoted(texts: Iterable[str]) -> str:
    return " and ".join(f"'{text}'" for text in sorted(set(texts)))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
