"""Splits that others published with a zoo: paths of each side as JSON, or the Small CNN Zoo's order of rows as CSV."""

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfn_transformer.bounded_text import MOST_JSON, parse_json
from nfn_transformer.errors import ZooError, type_of
from nfn_transformer.printable import printable, quoted

SIDES = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Sides, and their names in files."""

_ROW = re.compile(r"row(\d+)", re.ASCII)
_MOST_ROWS = 5_000_000


@dataclass(frozen=True)
class PublishedSplit:
    """Positions of a zoo's networks on each side."""

    sides: tuple[list[int], list[int], list[int]]
    """those of training, validation and test, ascending"""
    note: str
    """sentence on networks that are not in the file, for the screen"""
    checksum: str
    """of the file"""


def read_published_split(path: Path, names: Sequence[str], runs: Sequence[str]) -> PublishedSplit:
    """Return the sides of networks by a published split.

    A JSON file is {train, val, test} -> {path: [...]} or a list of paths. Each is matched with the end of a network's
    path. A CSV file of one column holds the order of an array zoo's rows, as the papers on the Small CNN Zoo have it.
    The first line is skipped. The second half of the zoo's networks in this order is the test side. The first half is
    shuffled by `random.Random(0)`; 80 % of it are for training.

    Args:
        path: the file.
        names: names of the zoo's networks.
        runs: their runs.

    Raises:
        ZooError: the file is damaged or of another form, or a side would be empty.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise ZooError(f"--split {path}: {path.stat().st_size} bytes, expected at most {MOST_JSON}")
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"--split {path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        sides, absent = _by_path(text, names) if text.lstrip()[:1] in "{[" and text else _by_row(text, names)
    except ValueError as error:
        raise ZooError(f"--split {path}: {printable(str(error))}") from None
    counts = dict(zip(SIDES, map(len, sides), strict=True))
    if not all(counts.values()):
        listed = ", ".join(f"{count} {side}" for side, count in counts.items())
        raise ZooError(f"--split {path}: expected networks of the zoo on each side, got {listed} of {len(names)}")
    side_of = {runs[position]: side for side, positions in enumerate(sides) for position in positions}
    twice = {runs[p] for side, positions in enumerate(sides) for p in positions if side_of[runs[p]] != side}
    checksum, left = f"{zlib.crc32(content):08x}", len(names) - sum(counts.values())
    note = (
        f"split of {path.name} (checksum {checksum}): {left} networks and {absent} of its entries have no counterpart"
    )
    if twice:
        note += f"; warning: {len(twice)} runs stand on two sides, the first {quoted(min(twice))}"
    return PublishedSplit((sides[0], sides[1], sides[2]), note, checksum)


def _by_path(text: str, names: Sequence[str]) -> tuple[list[list[int]], int]:
    """Return the sides by a JSON text, and the number of its paths that no network has.

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
    sides, absent = [], 0
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
            ends = (by_end[parts[start:]] for start in range(len(parts)) if parts[start:] in by_end)
            position = next(ends, -1)
            if position < 0:
                absent += 1
                continue
            if seen.setdefault(position, side) != side:
                raise ValueError(f"{quoted(names[position])} is on the sides {seen[position]} and {side}")
            positions.add(position)
        sides.append(sorted(positions))
    return sides, absent


def _by_row(text: str, names: Sequence[str]) -> tuple[list[list[int]], int]:
    """Return the sides by a text of one column of row indices, and the number of rows that are not in the zoo.

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
    return [sorted(order[place] for place in side) for side in sides], len(rows) - len(order)
