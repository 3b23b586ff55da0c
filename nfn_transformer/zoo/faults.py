"""Faults of a zoo's checkpoints: each with its reason, counted and listed, and the share at which a zoo is refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.errors import ZooError

# In per cent, so that the comparison is exact.
ALLOWED_SHARE = 5

_MOST_LISTED = 20

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def printable(text: str) -> str:
    """Return the text with Python's escapes for all that is not printable: control characters, line ends, surrogates.

    Names and keys in strangers' files must neither steer a terminal nor end a line.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def quoted(text: str) -> str:
    """Return the printable text in quotes."""
    return f"'{printable(text)}'"


class Reason(StrEnum):
    """Reason for leaving out a checkpoint."""

    UNREADABLE = "unreadable"
    MISSING = "missing"
    MISSING_KEY = "missing key"
    SHAPE = "shape differs"
    NOT_FINITE = "not finite"
    LABEL = "label"


@dataclass(frozen=True)
class Fault:
    """A checkpoint that is left out."""

    name: str
    """file name"""
    reason: Reason
    """kind of the fault"""
    detail: str
    """the fault itself, as text"""


@dataclass(frozen=True)
class Signature:
    """Shape of a checkpoint."""

    shapes: Shapes
    """pairs of a key and its shape, in the canonical order"""
    heads: int
    """number of heads"""

    def difference(self, expected: "Signature") -> str:
        """Return the first difference from another signature, with its key."""
        shapes, wanted = dict(self.shapes), dict(expected.shapes)
        for key in [*wanted, *shapes]:
            if shapes.get(key) != wanted.get(key):
                shape = f"has shape {shapes[key]}" if key in shapes else "is absent"
                return f"'{key}' {shape}, expected {wanted.get(key, 'no such key')}"
        return f"{self.heads} heads, expected {expected.heads}"


@dataclass(frozen=True)
class FaultReport:
    """Faults among the metadata rows of one epoch, and among the files that they name."""

    examined: int
    """number of distinct rows"""
    faults: tuple[Fault, ...] = ()
    """checkpoints that are left out, by file name"""
    stray_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """file name -> unknown keys of its checkpoint; counted only"""
    duplicates: tuple[str, ...] = ()
    """file names in more than one row; counted only"""
    unlisted: tuple[str, ...] = ()
    """checkpoint files that no row names; counted only"""

    def stray_key_counts(self) -> dict[str, int]:
        """Return unknown key -> number of checkpoints that carry it, the most frequent first."""
        return dict(Counter(key for keys in self.stray_keys.values() for key in keys).most_common())

    def summary(self) -> str:
        """Return some lines for the screen: counts of what is used, left out by reason, and counted only."""
        lines = [f"{self.examined - len(self.faults)} of {self.examined} checkpoints can be used"]
        if self.faults:
            counts = Counter(fault.reason for fault in self.faults)
            reasons = ", ".join(f"{counts[reason]} {reason}" for reason in Reason if counts[reason])
            lines.append(f"{len(self.faults)} left out: {reasons}")
        if self.stray_keys:
            keys = ", ".join(quoted(key) for key in list(self.stray_key_counts())[:5])
            lines.append(f"{len(self.stray_keys)} with unknown keys, which are ignored: {keys}")
        if self.duplicates:
            lines.append(f"{len(self.duplicates)} in more than one metadata row, used once")
        if self.unlisted:
            lines.append(f"{len(self.unlisted)} without a metadata row, left out")
        return "\n".join(lines)

    def fault_lines(self) -> list[str]:
        """Return one printable line per fault: file name, reason and detail."""
        return [printable(f"{fault.name}: {fault.reason}: {fault.detail}") for fault in self.faults]

    def csv(self) -> str:
        """Return all of the report as CSV with the columns file, used, reason and detail.

        Names and keys stay as they are. A name that is not UTF-8 has surrogates: write it with
        `errors="backslashreplace"`.
        """
        rows = [[fault.name, "no", fault.reason, fault.detail] for fault in self.faults]
        rows += [[name, "no", "no metadata row", ""] for name in self.unlisted]
        left_out = {fault.name for fault in self.faults}
        notes = [(name, "unknown keys", " ".join(keys)) for name, keys in self.stray_keys.items()]
        notes += [(name, "more than one metadata row", "") for name in self.duplicates]
        rows += [[name, "no" if name in left_out else "yes", *note] for name, *note in sorted(notes)]
        return csv_text(["file", "used", "reason", "detail"], rows)


def check_acceptable(
    report: FaultReport, signatures: Sequence[tuple[Signature, int]], path: Path, dataset: str, allow_faulty: bool
) -> None:
    """Check that a zoo is sound enough to be used: few faults, one architecture, one shape.

    Args:
        report: faults of the zoo.
        signatures: the signatures and their counts, the most common first.
        path, dataset: of the zoo, for messages.
        allow_faulty: use the sound checkpoints of the most common shape, however few they are.

    Raises:
        ZooError: more than 5 % carry unknown keys, have another shape or are faulty, or none is sound. The message
            lists each fault.
    """
    examined, faulty, stray = report.examined, len(report.faults), len(report.stray_keys)
    allowed = ALLOWED_SHARE * examined
    share = f"of {examined} checkpoints (more than {ALLOWED_SHARE} %)"
    problems, hint = [], " (--allow_faulty uses the others)"
    if len(signatures) > 1 and 100 * signatures[1][1] > allowed and not allow_faulty:
        problems.append("\n  ".join(["more than one shape:", *_shape_lines(signatures)]))
        hint = (
            " (--where COLUMN=VALUE,... reads a part by its metadata, --allow_faulty the most common shape, "
            "--all_sizes True all of them for --enc_mode complete)"
        )
    if 100 * stray > allowed:
        keys = [f"{quoted(key)} ({count})" for key, count in report.stray_key_counts().items()]
        more = f" and {len(keys) - _MOST_LISTED} more" if len(keys) > _MOST_LISTED else ""
        carried = f"{', '.join(keys[:_MOST_LISTED])}{more}"
        problems.insert(0, f"another architecture: {stray} {share} carry unknown keys: {carried}")
        hint = ""
    if 100 * faulty > allowed and not allow_faulty:
        problems.append(f"{faulty} {share} are faulty")
    if faulty == examined:
        problems.append(f"none of the {examined} checkpoints can be used")
        hint = ""
    if problems:
        first = f"{path}, data set {quoted(dataset)}: {'; '.join(problems)}{hint}"
        raise ZooError("\n".join([first, *(f"  {line}" for line in report.fault_lines()), report.summary()]))


def _shape_lines(signatures: Sequence[tuple[Signature, int]]) -> list[str]:
    """Return a line for each signature: its count, and the sizes that vary among the signatures."""
    listed = [(dict(signature.shapes), signature.heads, count) for signature, count in signatures]
    keys = list(dict.fromkeys(key for shapes, _, _ in listed for key in shapes))
    varying = [key for key in keys if len({shapes.get(key) for shapes, _, _ in listed}) > 1]
    lines = []
    for shapes, heads, count in listed[:_MOST_LISTED]:
        sizes = [f"'{key}' {shapes.get(key, 'absent')}" for key in varying[:_MOST_LISTED]]
        lines.append(f"{count} checkpoints: {', '.join([f'{heads} heads', *sizes])}")
    more = len(listed) - _MOST_LISTED
    return [*lines, f"and {more} more shapes"] if more > 0 else lines
