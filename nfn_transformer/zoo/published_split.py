"""Splits that others published with a zoo: paths of each side as JSON, or the Small CNN Zoo's order of rows as CSV."""

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from nfn_transformer.bounded_text import MOST_JSON, parse_json
from nfn_transformer.errors import UserError, type_of
from nfn_transformer.printable import printable, quoted

SIDES = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Sides, and their names in files."""

_ROW = re.compile(r"row(\d+)", re.ASCII)
_MOST_ROWS = 5_000_000


def read_published_split(path: Path, checksum: str, names: Sequence[str]) -> list[list[int]]:
    """Return the positions of networks on the sides of a published split: training, validation and test, ascending.

    A JSON file is {train, val, test} -> {path: [...]} or a list of paths. Each is matched with the end of a network's
    path: with more than the file's name, where both lie in folders. A CSV file of one column holds the order of an
    array zoo's rows, as the papers on the Small CNN Zoo have it. The first line is skipped. The second half of the
    zoo's networks in this order is the test side. The first half is shuffled by `random.Random(0)`; 80 % of it are for
    training.

    Args:
        path: the file.
        checksum: of the file, see `checksum_of`.
        names: names of the zoo's networks.

    Raises:
        UserError: the file is another, damaged or of another form, or a side would be empty.
    """
    found = checksum_of(path)
    if found != checksum:
        raise UserError(f"--split {path}: has changed, checksum {found}, expected {checksum}")
    try:
        text = path.read_text("utf-8-sig")
        sides = _by_path(text, names) if text.lstrip().startswith(("{", "[")) else _by_row(text, names)
    except UnicodeDecodeError as error:
        raise UserError(f"--split {path}: not a text in UTF-8 ({error.reason})") from None
    except ValueError as error:
        raise UserError(f"--split {path}: {printable(str(error))}") from None
    counts = dict(zip(SIDES, map(len, sides), strict=True))
    if not all(counts.values()):
        listed = ", ".join(f"{count} {side}" for side, count in counts.items())
        raise UserError(f"--split {path}: expected networks of the zoo on each side, got {listed} of {len(names)}")
    return sides


def checksum_of(path: Path) -> str:
    """Return the checksum of the file of a published split.

    Raises:
        UserError: the file cannot be read, or is larger than any split.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise UserError(f"--split {path}: {path.stat().st_size} bytes, expected at most {MOST_JSON}")
        return f"{zlib.crc32(path.read_bytes()):08x}"
    except OSError as error:
        raise UserError(f"--split {path}: cannot be read ({error.strerror or error})") from None


def _by_path(text: str, names: Sequence[str]) -> list[list[int]]:
    """Return the sides by a JSON text; paths that no network has are left out.

    Raises:
        ValueError: the text is of another form, or a network is on two sides.
    """
    record = parse_json(text)
    if not isinstance(record, Mapping):
        raise ValueError(f"expected an object with train, val and test, got {type_of(record)}")
    by_end: dict[tuple[str, ...], int] = {}
    for position, name in enumerate(names):
        parts = tuple(name.split("/"))
        for end in {len(parts), max(1, len(parts) - 1)}:  # a path may be that of a checkpoint's folder
            for start in range(end):
                known = by_end.setdefault(parts[start:end], position)
                if known != position:
                    by_end[parts[start:end]] = -1  # the end of several
    seen: dict[int, str] = {}
    sides = []
    for side, keys in SIDES.items():
        key = next((key for key in keys if key in record), None)
        if key is None:
            raise ValueError(f"no key {' or '.join(map(quoted, keys))}; there are {printable(', '.join(record), 200)}")
        paths = record[key].get("path") if isinstance(record[key], Mapping) else record[key]
        if not isinstance(paths, list) or not all(isinstance(each, str) for each in paths):
            raise ValueError(f"{quoted(key)}: expected a list of paths, or one under 'path'")
        positions = set()
        for each in paths:
            parts = tuple(part for part in re.split(r"[/\\]", each) if part not in ("", "."))
            start = next((start for start in range(len(parts)) if parts[start:] in by_end), 0)
            position = by_end.get(parts[start:], -1)
            # Of train/model_5.pth and test/model_5.pth one may be in the zoo: a file's name alone tells neither.
            is_name_alone = start > 0 and start == len(parts) - 1 and names[position].endswith(f"/{parts[-1]}")
            if position < 0 or is_name_alone:
                continue
            if seen.setdefault(position, side) != side:
                raise ValueError(f"{quoted(names[position])} is on the sides {seen[position]} and {side}")
            positions.add(position)
        sides.append(sorted(positions))
    return sides


def _by_row(text: str, names: Sequence[str]) -> list[list[int]]:
    """Return the sides by a text of one column of row indices; rows that are not in the zoo are left out.

    Raises:
        ValueError: the text is of another form, or the networks are no rows of an array zoo.
    """
    first, *lines = text.split()[: _MOST_ROWS + 1] or [""]
    if first.isdecimal() and first != "0":
        raise ValueError(f"first line {quoted(first)}: expected a header or the published file's 0, which is skipped")
    wrong = next((line for line in lines if not line.isdecimal() or len(line) > 9), None)
    if wrong is not None or not lines:
        raise ValueError(f"expected JSON, or a row index in each line, got {quoted(wrong or '')}")
    position_of = {}
    for position, name in enumerate(names):
        match = _ROW.fullmatch(name)
        if match is None:
            raise ValueError(f"holds rows of an array zoo, and {quoted(name)} is none")
        position_of[int(match[1])] = position
    rows = [int(line) for line in lines]
    if len(set(rows)) < len(rows):
        raise ValueError("expected each row index once")
    order = [position_of[row] for row in rows if row in position_of]
    half = int(0.5 * len(order))
    first_half = list(range(half))
    random.Random(0).shuffle(first_half)
    trained = int(0.8 * half)
    sides = [first_half[:trained], first_half[trained:], list(range(half, len(order)))]
    return [sorted(order[place] for place in side) for side in sides]
