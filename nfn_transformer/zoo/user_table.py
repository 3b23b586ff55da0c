"""Tables of a user's own: a CSV of checkpoints' files and a score, whose columns are guessed where they are plain."""

import csv
import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.errors import ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.zoo.listing import chosen_checkpoints
from nfn_transformer.zoo.metadata import HYPERPARAMETER_COLUMNS, SIZE_COLUMNS, Columns
from nfn_transformer.zoo.network_facts import FACTS
from nfn_transformer.zoo.runs import canonical_epoch, file_of_each_path, runs_of_files
from nfn_transformer.zoo.sources import MAX_TABLE_BYTES, MAX_TABLE_ROWS, SUFFIXES, Source, UnreadableFile

_SEPARATORS = ",;\t|"

_LABELS = {
    "accuracy": (
        ("test_top1_accuracy",),
        ("test_accuracy", "test_acc"),
        ("accuracy", "acc", "top1"),
        ("score",),
        ("val_accuracy", "val_acc", "validation_accuracy", "eval_accuracy"),
    ),
    "number": (
        ("label", "score", "target"),
        ("test_loss", "loss", "eval_loss", "val_loss", "perplexity", "gap", "generalization_gap"),
        ("test_top1_accuracy", "test_accuracy", "test_acc", "accuracy", "acc"),
    ),
    "class": (("label", "class"),),
}
"""Plain names of labels by kind: of the first group that is there, one."""

_RUNS = ("run", "run_id", "run_name", "training")

_WHOLE = re.compile(r"(model|pytorch_model)\.(safetensors|bin)(\.index\.json)?$")
"""Names under which libraries save a network in a folder of its own."""

_MARKED_EPOCH = re.compile(r"(?<![a-z])(?:epochs?|ep|steps?|iters?)[-_=]*(\d+)[^/]*", re.IGNORECASE | re.ASCII)
_STEP_FOLDER = re.compile(r"(?<=/)(?:checkpoint|ckpt)[-_](\d+)(?=/)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class UserTable:
    """A user's table with its columns found, and the rows of the chosen checkpoints."""

    content: bytes
    """CSV with columns of files, epochs, labels and runs before the table's own"""
    columns: Columns
    """names of these four columns"""
    notes: tuple[str, ...]
    """sentences about how the table was read, for the screen"""


def read_user_table(
    path: Path,
    source: Source,
    files: Sequence[str],
    columns: Columns,
    labels: str,
    epoch: str,
    flag: str = "table",
) -> UserTable:
    """Return the table in a file, with the checkpoint, the run, the epoch and the label of each row.

    Args:
        path: the CSV.
        source: place of the checkpoints.
        files: their paths within the source, those least deep first.
        columns: names of its columns; others are guessed.
        labels: kind of the labels, one of `metadata.LABELS`.
        epoch: chosen checkpoints of each run, see `listing.chosen_checkpoints`; it counts where a column of epochs is
            named.
        flag: name of the flag that names the CSV, for errors.

    Raises:
        ZooError: the file is no CSV, a column is not there or cannot be guessed, or a row's run cannot be told.
    """
    header, rows, separator = read_csv(path, flag)
    at = _Header(f"--{flag} {path}", header)
    named = {file: (file, file) for file in files} | _aliases(source, files)
    file_column, file_of = _file_column(at, rows, list(named), len(files), columns.file)
    guessed = {} if columns.file else {"file": header[file_column]}
    wanted = {"label": columns.label, "epoch": columns.epoch, "run": columns.run}
    places = {role: at.place(name, f"{role}_column") for role, name in wanted.items() if name is not None}
    taken = {file_column, *places.values()}
    if columns.label is None and labels != "none":
        places["label"] = _label_column(at, rows, labels, taken)
        guessed["label"] = header[places["label"]]
    if columns.run is None and (place := at.first(_RUNS)) is not None:
        places["run"] = place
        guessed["run"] = header[place]
    cells = [row[file_column] for row in rows]
    _check_meaning(at, cells, file_of, list(named))
    paths = [named[file_of[cell]][0] if file_of.get(cell) in named else cell for cell in cells]
    epochs = [canonical_epoch(row[places["epoch"]]) for row in rows] if "epoch" in places else None
    told = [row[places["run"]] for row in rows] if "run" in places else None
    runs, epochs, notes = _runs(at, paths, told, epochs)
    label = [row[places["label"]] if "label" in places else "" for row in rows]
    chosen: Sequence[int] = range(len(rows))
    if "epoch" in places:
        chosen, chosen_notes = chosen_checkpoints(runs, epochs, epoch, label, str(path))
        notes += chosen_notes
    if guessed:
        found = ", ".join(f"{role}s by {quoted(name)}" for role, name in guessed.items())
        flags = ", ".join(f"--{role}_column" for role in guessed)
        notes = (f"columns of {printable(path.name)}: {found} (guessed; {flags} name others)", *notes)
    lines = [[paths[i], epochs[i], label[i], runs[i], *rows[i]] for i in chosen]
    label_name = header[places["label"]] if "label" in places else ""
    own = ("(file)", "(epoch)", f"(label) {label_name}".rstrip(), "(run)")  # names that no table of a user has
    header = [*own, *header]
    text = csv_text(header, lines) if separator != ";" else _with_semicolons(header, lines)
    return UserTable(text.encode("utf-8", "surrogateescape"), Columns(*own), notes)


def _with_semicolons(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table whose numbers may have decimal commas, see `metadata.select_rows`."""
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\n").writerows([header, *lines])
    return text.getvalue()


def read_csv(path: Path, flag: str = "table") -> tuple[list[str], list[list[str]], str]:
    """Return header, rows of as many cells, and separator of a CSV that a flag names.

    Raises:
        ZooError: the file cannot be read, is no CSV, or is empty.
    """
    try:
        if (size := path.stat().st_size) > MAX_TABLE_BYTES:
            raise ZooError(f"--{flag} {path}: {size} bytes, expected at most {MAX_TABLE_BYTES}")
        text = path.read_bytes().decode("utf-8-sig")
        separator = max(_SEPARATORS, key=text.split("\n", 1)[0].count)
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(line)]
    except OSError as error:
        raise ZooError(f"--{flag} {path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ZooError(f"--{flag} {path}: not a CSV table in UTF-8 ({error})") from None
    if not 2 <= len(lines) <= MAX_TABLE_ROWS:
        raise ZooError(f"--{flag} {path}: expected a header and 1 to {MAX_TABLE_ROWS} rows, got {len(lines)} lines")
    header = [name.strip() for name in lines[0]]
    cells = [[cell.strip() for cell in line] for line in lines[1:]]
    return header, [row[: len(header)] + [""] * (len(header) - len(row)) for row in cells], separator


@dataclass(frozen=True)
class _Header:
    """Header of a table; capital letters do not count."""

    table: str
    """flag and path"""
    names: list[str]

    def place(self, name: str, flag: str) -> int:
        """Return the place of a named column; raise ZooError where it is not there once."""
        places = [place for place, each in enumerate(self.names) if each == name]
        places = places or [place for place, each in enumerate(self.names) if each.lower() == name.lower()]
        if len(places) != 1:
            problem = f"{len(places)} columns of this name" if places else "no such column"
            raise self.error(f"--{flag} {name}: {problem}")
        return places[0]

    def first(self, names: Sequence[str]) -> int | None:
        """Return the place of the only column with one of these names; None where none or several have one."""
        places = [place for place, each in enumerate(self.names) if each.lower().replace(" ", "_") in names]
        return places[0] if len(places) == 1 else None

    def error(self, problem: str) -> ZooError:
        """Return an error that lists the columns."""
        there = ", ".join(map(quoted, self.names[:30]))
        return ZooError(f"{self.table}: {problem}; there are {there}")


def _file_column(
    at: _Header, rows: Sequence[Sequence[str]], known: Sequence[str], count: int, name: str | None
) -> tuple[int, dict[str, str]]:
    """Return the place of the column of files, and cell -> file or alias of all that are there.

    The column is the named one, else that with most cells that name a file. The first `count` of `known` are files.

    Raises:
        ZooError: no column names files.
    """
    places = range(len(at.names)) if name is None else [at.place(name, "file_column")]
    best: tuple[int, dict[str, str]] = (-1, {})
    most = 0
    for place in places:
        cells = [row[place] for row in rows]
        found = {cell: file for cell, (_, file) in file_of_each_path(cells, known, "").items() if file is not None}
        if (hits := sum(cell in found for cell in cells)) > most:
            best, most = (place, found), hits
    if not most:
        column = "no column names" if name is None else f"--file_column {name}: names none of"
        raise at.error(f"{column} the {count} checkpoints, the first of which is {quoted(known[0])}")
    return best


def _check_meaning(at: _Header, cells: Sequence[str], file_of: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise ZooError where a cell is the end of several paths, none of which is all of it."""
    ends = Counter("/".join(file.split("/")[start:]) for file in known for start in range(file.count("/") + 1))
    for cell in dict.fromkeys(cells):
        if (file := file_of.get(cell)) is None:
            continue
        words = [word for word in re.split(r"[/\\]", cell) if word not in ("", ".")]
        pairs = zip(reversed(words), reversed(file.split("/")), strict=False)
        shared = "/".join(reversed([one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]))
        if ends[shared] > 1 and shared != file:
            several = [each for each in known if each == shared or each.endswith(f"/{shared}")]
            raise at.error(f"{quoted(cell)} may be {' or '.join(map(quoted, several[:3]))}: expected longer paths")


def _label_column(at: _Header, rows: Sequence[Sequence[str]], labels: str, taken: set[int]) -> int:
    """Return the place of the column of labels: one of a plain name, else the only other one that can be it.

    Raises:
        ZooError: none or several can be it.
    """
    for names in _LABELS[labels]:
        places = [place for place, each in enumerate(at.names) if each.lower().replace(" ", "_") in names]
        if len(places) == 1:
            return places[0]
        if places:
            listed = " and ".join(quoted(at.names[place]) for place in places)
            raise at.error(f"labels may be {listed}: --label_column names one")
    others = [place for place in range(len(at.names)) if place not in taken]
    if labels != "class":
        known = (*SIZE_COLUMNS, *HYPERPARAMETER_COLUMNS, *FACTS)
        others = [place for place in others if at.names[place].lower() not in known]
        others = [place for place in others if all(_is_number(row[place]) for row in rows)]
    if len(others) != 1:
        numbers = [name for name in at.names if name.lower().replace(" ", "_") in _LABELS["number"][1]]
        hint = f"; --task regress learns {quoted(numbers[0])}" if numbers and labels == "accuracy" else ""
        kind = "an accuracy" if labels == "accuracy" else "a label"
        raise at.error(f"no column has a plain name of {kind}: --label_column names one{hint}")
    return others[0]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?\s*%?|nan|", cell, re.IGNORECASE) is not None


def _aliases(source: Source, files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return other words for checkpoints -> path and word: paths without endings, folders, names in hub caches.

    A folder stands for the one checkpoint in it, or for that under a library's usual name. `models--USER--NAME`, as
    the hub's cache calls it, stands for USER/NAME too; of its snapshots that of `refs/main` counts.
    """
    below: dict[str, list[str]] = defaultdict(list)
    for file in files:
        parts = file.split("/")
        for end in range(1, len(parts)):
            below["/".join(parts[:end])].append(file)
    words: dict[str, list[str]] = defaultdict(list)
    for file in files:
        words[file.removesuffix(next(end for end in reversed(SUFFIXES) if file.endswith(end)))].append(file)
    for folder, members in below.items():
        name = folder.rsplit("/", 1)[-1]
        if name.startswith("models--"):
            with_main = _of_main(source, folder, members)
            words[folder], words[name.removeprefix("models--").replace("--", "/", 1)] = with_main, with_main
        else:
            own = [file for file in members if file.rsplit("/", 1)[0] == folder]
            whole = [file for file in own if _WHOLE.search(file)]
            words[folder] = whole if len(whole) == 1 else members
    return {word: (same[0], word) for word, same in words.items() if len(same) == 1 and word not in files}


def _of_main(source: Source, folder: str, members: list[str]) -> list[str]:
    """Return the checkpoints of a hub cache's folder that are of the revision `main`, or all without one."""
    whole = [file for file in members if _WHOLE.search(file)] or members
    try:
        revision = source.read(f"{folder}/refs/main").decode("ascii", "replace").strip()
    except (UnreadableFile, KeyError):
        return whole
    return [file for file in whole if file.startswith(f"{folder}/snapshots/{revision}/")] or whole


def _runs(
    at: _Header, paths: Sequence[str], told: list[str] | None, epochs: list[str] | None
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return run and epoch of each checkpoint, and notes.

    A column tells runs, else the names do. With a column of epochs, each name without its epoch is a run. Without one,
    words as `epoch10` and folders as `checkpoint-500` are left out of names. Any other file is a run of its own.

    Raises:
        ZooError: there is a column of epochs, and a name does not tell its run.
    """
    marks = [_MARKED_EPOCH.search(path) or _STEP_FOLDER.search(path) for path in paths]
    marked = [canonical_epoch(mark[1]) if mark else "0" for mark in marks]
    if told is not None:
        return [run or path for run, path in zip(told, paths, strict=True)], epochs or marked, ()
    if epochs is not None:
        runs = runs_of_files({path: (path, epoch, None) for path, epoch in zip(paths, epochs, strict=True)})
        if lacking := [path for path in paths if runs[path] is None]:
            first = f"{quoted(lacking[0])} and {len(lacking) - 1} more names do not tell their run"
            raise at.error(f"--epoch_column: {first}; --run_column names a column that does")
        return [str(runs[path]) for path in paths], epochs, ()
    cut = [path[: mark.start()] + path[mark.end() :] if mark else path for path, mark in zip(paths, marks, strict=True)]
    counts = Counter(cut)
    if len(counts) == len(set(paths)):
        return [re.sub(r"\.\w+$", "", path) for path in paths], marked, ()
    several = sum(count > 1 for count in counts.values())
    note = f"{len(paths)} files are of {len(counts)} runs, {several} of them with several epochs, as their names tell"
    return cut, marked, (f"{note} (--run_column)",)
