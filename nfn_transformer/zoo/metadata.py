"""A zoo's metadata table: the rows of an epoch that meet a condition, their labels, heads and hyperparameters."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nfn_transformer.errors import ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.network_facts import FACTS
from nfn_transformer.zoo.runs import canonical_epoch, file_of_each_path, runs_of_files
from nfn_transformer.zoo.sources import Release

LABELS = ("accuracy", "number", "class", "none")
"""Kinds of labels: a number in [0, 1], any finite number, text or numbers that name a class, or no label."""

LABEL_COLUMNS = {"accuracy": ("test_top1_accuracy", "test_accuracy"), "number": ("label",), "class": ("label",)}
"""Columns of labels by kind, the first one that is there."""

_EXPECTED = {"accuracy": "a number in [0, 1]", "number": "a finite number", "class": "text or a number"}

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

DEFAULT_EPOCH, ALL_EPOCHS, LAST_EPOCHS = "75", "all", "last"
"""Epoch where none is asked for, all of them, and the last one of each run. Zoos without the default give the last."""

_BEST_EPOCHS = ("best", "best1")

EMPTY_CELLS = ("", "nan", "na", "n/a", "none", "null", "-")
"""Ways to write that a cell is empty, in small letters."""

_SEPARATORS = ",;\t|"

# Of float32; nan is not below it either.
_LARGEST = 3e38

_LOSS = re.compile("loss|perplexity", re.IGNORECASE)
"""Names of columns whose numbers from 0 to 100 are no percent."""


@dataclass(frozen=True)
class Columns:
    """Names of the table's columns; capital letters do not count."""

    file: str | None = None
    """path or name of the checkpoint; None: ckpt_file"""
    epoch: str | None = None
    """epoch of the checkpoint; None: ckpt_epoch"""
    label: str | None = None
    """label; None: see LABEL_COLUMNS"""
    run: str | None = None
    """run of the checkpoint; None: the file's name tells it"""


@dataclass(frozen=True)
class Condition:
    """Condition on rows of the table, as `n_layers=2,optimizer=adam`."""

    text: str = ""
    """the condition with its columns in alphabetic order; empty where all rows are read"""
    wanted: tuple[tuple[str, str], ...] = ()
    """pairs of a column and its value, which is compared as a number where both are numbers"""

    @classmethod
    def parse(cls, text: str, flag: str = "--where") -> "Condition":
        """Return the condition of a text like `n_layers=2,optimizer=adam`, which a flag has.

        Raises:
            ZooError: the text is of another form, or names a column twice.
        """
        parts = [part.partition("=") for part in text.split(",")] if text.strip() else []
        wanted = tuple(sorted((column.strip(), value.strip()) for column, _, value in parts))
        if not all(sign for _, sign, _ in parts) or not all(column and value for column, value in wanted):
            raise ZooError(f"{flag} {quoted(text)}: expected COLUMN=VALUE, or several with commas between them")
        if len(dict(wanted)) < len(wanted):
            twice = next(column for column, count in Counter(column for column, _ in wanted).items() if count > 1)
            raise ZooError(f"{flag} {quoted(text)}: expected each column once, got {quoted(twice)} twice")
        return cls(",".join(f"{column}={value}" for column, value in wanted), wanted)


@dataclass(frozen=True)
class TableRow:
    """A row of the table, as text."""

    name: str
    """name of the checkpoint, see `runs.file_of_each_path`, or `(row N)` where the row tells none"""
    is_named: bool
    """the row tells a file name"""
    epoch: str
    """canonical epoch"""
    label: str
    """label"""
    run: str | None
    """run of the checkpoint; None where the row does not tell it"""
    cells: Mapping[str, str]
    """column -> text, of the columns of sizes, hyperparameters and the condition"""


@dataclass(frozen=True)
class Entry:
    """A checkpoint that the table describes well."""

    name: str
    """name, as of its row"""
    run: str
    """run, see `runs.runs_of_files`"""
    epoch: str
    """canonical epoch"""
    label: float | str
    """number, or the name of a class"""
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
    paths: Mapping[str, str]
    """name -> path of the file within the zoo, of all rows of the table whose file is there"""
    unlisted: tuple[str, ...]
    """names of checkpoint files that no row names"""
    runs_are_told: bool
    """every row tells its run, so that checkpoints of other epochs can be told to be of the same one"""
    notes: tuple[str, ...]
    """sentences about how the table was read, for the screen"""


def select_rows(
    release: Release,
    epoch: str,
    condition: Condition,
    n_heads: int | None = None,
    columns: Columns | None = None,
    labels: str = "accuracy",
) -> Selection:
    """Return the rows of an epoch that meet a condition.

    Args:
        release: the data set, with its table.
        epoch: a number as text, `best` (the epochs best and best1), `last` or `all`. DEFAULT_EPOCH means the last one
            of each run where no row of the table has it.
        condition: on the cells of a row.
        n_heads: number of heads that every row must tell that tells any.
        columns: names of columns other than the release's.
        labels: kind of the labels, one of LABELS.

    Raises:
        ZooError: the table is no CSV or lacks a column, or no row meets the condition or has this epoch. A row tells
            other heads. Several epochs are read, and a row's run cannot be told.
    """
    table, paths, notes = _read_rows(release, condition, columns or Columns(), labels)
    meeting = [row for row in table if all(same_value(row.cells[key], value) for key, value in condition.wanted)]
    if table and not meeting:
        raise _table_error(release, f"no row where {condition.text}; {_values(table, condition)}")
    canonical = canonical_epoch(epoch)
    wanted = _BEST_EPOCHS if canonical == "best" else (canonical,)
    rows = [row for row in meeting if canonical == ALL_EPOCHS or row.epoch in wanted]
    is_absent = canonical == DEFAULT_EPOCH and all(row.epoch != canonical for row in table)
    if meeting and (canonical == LAST_EPOCHS or is_absent):
        newest: dict[str, TableRow] = {}
        for row in sorted(meeting, key=lambda row: -math.inf if (number := _number(row.epoch)) is None else number):
            newest[row.run or row.name] = row
        rows = [row for row in meeting if row is newest[row.run or row.name]]
        notes = (*notes, f"read the last checkpoint of each of {len(rows)} runs (--ckpt_epoch)")
    if not rows:
        flag = "--ckpt_epoch takes last, best and all as well"
        raise _table_error(release, f"no checkpoints of epoch {quoted(epoch)}; there are {_epochs(meeting)}; {flag}")
    by_name: dict[str, list[TableRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    groups = sorted(by_name.items())
    described = [_describe(same, labels) for _, same in groups]
    entries = tuple(entry for entry in described if isinstance(entry, Entry))
    if others := [entry for entry in entries if n_heads is not None and entry.heads not in (None, n_heads)]:
        first = f"that of {quoted(others[0].name)} has {HEADS_COLUMN} {others[0].heads}"
        raise _table_error(release, f"--n_heads {n_heads} contradicts {len(others)} of {len(entries)} rows; {first}")
    lacking = [row for row in rows if row.run is None and row.is_named]
    if lacking and len({row.epoch for row in rows}) > 1:
        first = f"{quoted(lacking[0].name)} of epoch {quoted(lacking[0].epoch)}"
        raise _table_error(
            release,
            f"--ckpt_epoch {epoch}: expected file names that tell the run, as RUN_EPOCH.pt or RUN/EPOCH.pt, got "
            f"{first} and {len(lacking) - 1} more; --run_column COLUMN names a column that tells it",
        )
    listed, used = {row.name for row in table}, set(paths.values())
    last_names = Counter(file.rsplit("/", 1)[-1] for file in release.files)
    unlisted = []
    for file in release.files:
        last = file.rsplit("/", 1)[-1]
        if file not in used and last not in listed:
            unlisted.append(last if last_names[last] == 1 else file.removeprefix(f"{release.folder}/"))
    return Selection(
        rows=tuple(rows),
        entries=entries,
        faults=tuple(fault for fault in described if isinstance(fault, Fault)),
        duplicates=tuple(name for name, same in groups if len(same) > 1),
        paths=paths,
        unlisted=tuple(sorted(unlisted)),
        runs_are_told=not lacking,
        notes=notes,
    )


def _read_rows(
    release: Release, condition: Condition, columns: Columns, labels: str
) -> tuple[list[TableRow], dict[str, str], tuple[str, ...]]:
    """Return all rows of the table, the files of their checkpoints by name, and notes on how the table was read.

    Raises:
        ZooError: the table is no UTF-8 text, no CSV, lacks a column, or has a column twice.
    """
    try:
        text = release.metadata.decode("utf-8-sig")
        first_line = text.split("\n", 1)[0]
        separator = max(_SEPARATORS, key=first_line.count)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header = [name.strip() for name in next(lines, [])]
        position = _positions(release, header, condition, columns, labels)
        filled = [
            {_LABEL: ""} | {name: line[index].strip() if index < len(line) else "" for name, index in position.items()}
            for line in filter(None, lines)
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _table_error(release, f"not a CSV table in UTF-8 ({error})") from None
    if separator == ";":  # which stands where the comma is the decimal point
        filled = [{name: re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for name, cell in row.items()} for row in filled]
    are_losses = _LABEL in position and _LOSS.search(header[position[_LABEL]])
    notes = _percent_to_fractions(filled) if labels == "accuracy" and not are_losses else ()
    named = file_of_each_path([row[_FILE] for row in filled], release.files, release.folder)
    rows, described = [], {}
    for number, cells in enumerate(filled):
        name, file = named.get(cells[_FILE], (f"(row {number})", None))
        epoch = canonical_epoch(cells[_EPOCH])
        if cells[_FILE] in named:
            path = (file or cells[_FILE]).removeprefix(f"{release.folder}/")
            described[name] = path, epoch, _number(cells[_LABEL]) if labels == "accuracy" else None
        rows.append(TableRow(name, cells[_FILE] in named, epoch, cells[_LABEL], cells.get(_RUN) or None, cells))
    if columns.run is None:
        runs = runs_of_files(described)
        rows = [replace(row, run=runs.get(row.name)) for row in rows]
    return rows, {name: file for name, file in named.values() if file is not None}, notes


# Under these names, which no header has, the cells hold what the columns of `Columns` tell.
_FILE, _EPOCH, _LABEL, _RUN = " file", " epoch", " label", " run"


def _positions(
    release: Release, header: list[str], condition: Condition, columns: Columns, labels: str
) -> dict[str, int]:
    """Return column -> position in the header, capital letters aside.

    Raises:
        ZooError: a column is not there, or one that is read is there twice.
    """
    wanted = {
        _FILE: (columns.file or "ckpt_file",),
        _EPOCH: (columns.epoch or "ckpt_epoch",),
        **({_LABEL: (columns.label,) if columns.label else LABEL_COLUMNS[labels]} if labels != "none" else {}),
        **({_RUN: (columns.run,)} if columns.run else {}),
        **{name: (name,) for name, _ in condition.wanted},
    }
    optional = {name: (name,) for name in (*SIZE_COLUMNS, *HYPERPARAMETER_COLUMNS, *FACTS)}
    position: dict[str, int] = {}
    for role, choices in (wanted | optional).items():
        for name in reversed(choices):  # the first one counts
            places = [place for place, each in enumerate(header) if each == name]
            places = places or [place for place, each in enumerate(header) if each.lower() == name.lower()]
            if len(places) > 1:
                raise _table_error(release, f"column {quoted(name)}: expected it once, got it {len(places)} times")
            if places:
                position[role] = places[0]
    lacking = [" or ".join(map(quoted, choices)) for role, choices in wanted.items() if role not in position]
    if lacking:
        there = ", ".join(map(quoted, header[:30])) or "no columns"
        flags = "--file_column, --epoch_column, --label_column and --run_column name others"
        raise _table_error(release, f"no column {', no column '.join(lacking)}; there are {there}; {flags}")
    return position


def _percent_to_fractions(rows: list[dict[str, str]]) -> tuple[str, ...]:
    """Divide labels by 100 where the whole column is in percent; return the note on it.

    A column is in percent where every number lies in [0, 100] and at most one in twenty in (0, 1].
    """
    numbers = {}
    for row in rows:
        cell = row[_LABEL]
        if (number := _number(cell.removesuffix("%").strip())) is not None:
            numbers[cell] = number
    counts = Counter(row[_LABEL] for row in rows if row[_LABEL] in numbers)
    total = sum(counts.values())
    if not total or not all(0 <= number <= 100 for number in numbers.values()):
        return ()
    small = sum(count for cell, count in counts.items() if 0 < numbers[cell] <= 1 and not cell.endswith("%"))
    large = sum(count for cell, count in counts.items() if numbers[cell] > 1 or cell.endswith("%"))
    if not large or 20 * small > total:
        return ()
    for row in rows:
        if row[_LABEL] in numbers:
            row[_LABEL] = repr(numbers[row[_LABEL]] / 100)
    return (f"labels are in percent ({total} numbers from 0 to 100): divided by 100",)


def _table_error(release: Release, problem: str) -> ZooError:
    return ZooError(f"{release.source.path}: {printable(release.metadata_name)}: {problem}")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _class_name(text: str) -> str | None:
    """Return the name of a class; numbers are written one way, so that 3 and 3.0 are one class. None: no class."""
    number = None if "_" in text else _number(text)
    if number is None:
        return None if text.lower() in EMPTY_CELLS else text
    return str(int(number)) if number.is_integer() else repr(number)


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names of classes: numbers first, in their order, then texts."""
    numbers = {name: _number(name) if "_" not in name else None for name in set(labels)}
    return tuple(sorted(numbers, key=lambda name: (numbers[name] is None, numbers[name] or 0.0, name)))


def same_value(cell: str, value: str) -> bool:
    """Return whether a cell has a value; both are compared as numbers where both are numbers."""
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


def _describe(rows: list[TableRow], kind: str) -> Entry | Fault:
    """Return the one checkpoint that rows of one file name describe, or their fault."""
    name, cells = rows[0].name, rows[0].cells
    if not rows[0].is_named:
        return Fault(name, Reason.MISSING, "the row has no ckpt_file")
    label, fault = parse_label(name, rows[0].label, kind)
    if any(parse_label(name, row.label, kind)[0] != label for row in rows[1:]):
        return Fault(name, Reason.LABEL, f"its rows contradict each other: labels {_quoted(row.label for row in rows)}")
    if fault is not None:
        return fault
    texts = [row.cells.get(HEADS_COLUMN, "") for row in rows]
    texts = [text for text in texts if text.lower() not in EMPTY_CELLS]
    numbers = {_number(text) for text in texts}
    heads = {int(number) for number in numbers if number and number >= 1 and number.is_integer()}
    if len(numbers) > 1 or len(heads) < len(numbers):
        detail = f"{HEADS_COLUMN} is {_quoted(texts)}, expected one whole number of at least 1"
        return Fault(name, Reason.SHAPE, detail)
    run = rows[0].run or name.rsplit(".", 1)[0]
    return Entry(name, run, rows[0].epoch, label, heads.pop() if heads else None, tuple(encode(cells)))


def parse_label(name: str, text: str, kind: str) -> tuple[float | str, Fault | None]:
    """Return the number, or the name of the class, of a label; and the fault of checkpoint `name` where it is none."""
    if kind == "none":
        return 0.0, None
    label = _class_name(text) if kind == "class" else _number(text)
    low, high = (0, 1) if kind == "accuracy" else (-_LARGEST, _LARGEST)
    if label is None or not (isinstance(label, str) or low <= label <= high):
        problem = f"label {text}" if text else "no label"
        reason = Reason.OUTSIDE if kind == "accuracy" and label is not None else Reason.LABEL
        return 0.0, Fault(name, reason, f"{problem}, expected {_EXPECTED[kind]}")
    return label, None


def _quoted(texts: Iterable[str]) -> str:
    return " and ".join(f"'{text}'" for text in sorted(set(texts)))


def encode(cells: Mapping[str, str]) -> list[float]:
    """Return the numbers HYPERPARAMETERS of a row's cells, column -> text."""
    values = [_number(cells.get(name, "")) for name in NUMBERS]
    optimizer = cells.get("optimizer", "").lower()
    named = [ABSENT if optimizer in EMPTY_CELLS else float(optimizer == name) for name in ZOO_OPTIMIZERS]
    return [ABSENT if value is None or abs(value) >= _LARGEST else value for value in values] + named
