"""Faults of a zoo's checkpoints: each with its reason, counted and listed, and the share at which a zoo is refused."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.errors import ZooError
from nfn_transformer.printable import bounded, printable, quoted
from nfn_transformer.zoo.recognition import ADVICE, EXPECTED

# In per cent, so that the comparison is exact.
ALLOWED_SHARE = 5

MOST_LISTED = 10
"""Lines of a kind, or keys, that a message lists."""

_MOST_FAULT_LINES, _LONGEST_LINE, _MOST_KEYS = 20, 120, 20

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Reason(StrEnum):
    """Reason for leaving out a checkpoint."""

    UNREADABLE = "unreadable"
    MISSING = "missing"
    MISSING_KEY = "missing key"
    SHAPE = "shape differs"
    NOT_FINITE = "not finite"
    LABEL = "label"
    OUTSIDE = "label outside [0, 1]"


@dataclass(frozen=True)
class Fault:
    """A checkpoint that is left out."""

    name: str
    """file name"""
    reason: Reason
    """kind of the fault"""
    detail: str
    """the fault itself, as text"""
    kind: str = ""
    """what the file looks like, one of `recognition.ADVICE`; empty: like nothing known"""


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
    """file name -> unknown keys of its checkpoint's tensors; counted only"""
    duplicates: tuple[str, ...] = ()
    """file names in more than one row; counted only"""
    unlisted: tuple[str, ...] = ()
    """checkpoint files that no row names; counted only"""
    entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """file name -> keys of its checkpoint's entries that are no tensors; counted only"""
    forms: Mapping[str, str] = field(default_factory=dict)
    """file name -> how the keys of its checkpoint are written, where not plainly; counted only"""
    notes: tuple[str, ...] = ()
    """sentences about how the table was read"""

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
        if self.entries:
            names = [quoted(key) for key in Counter(key for keys in self.entries.values() for key in keys)]
            lines.append(f"{len(self.entries)} with entries that are no tensors, ignored: {', '.join(names[:5])}")
        lines += [f"{count} read {printable(form)}" for form, count in Counter(self.forms.values()).most_common(3)]
        if self.duplicates:
            lines.append(f"{len(self.duplicates)} in more than one metadata row, used once")
        if self.unlisted:
            lines.append(f"{len(self.unlisted)} without a metadata row, left out")
        return "\n".join([*lines, *self.notes])

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
        notes += [(name, "entries that are no tensors", " ".join(keys)) for name, keys in self.entries.items()]
        notes += [(name, "keys are written otherwise", form) for name, form in self.forms.items()]
        notes += [(name, "more than one metadata row", "") for name in self.duplicates]
        rows += [[name, "no" if name in left_out else "yes", *note] for name, *note in sorted(notes)]
        return csv_text(["file", "used", "reason", "detail"], rows)


def listed_lines(report: FaultReport, write_list: Callable[[], Path | None] = lambda: None) -> list[str]:
    """Return lines on the faults of a report: at most ten of each reason, and twenty of all.

    Args:
        report: whose faults are listed.
        write_list: writes the whole list to a file, where some are left out, and returns its path.
    """
    by_reason: dict[Reason, list[int]] = {}
    for index, fault in enumerate(report.faults):
        by_reason.setdefault(fault.reason, []).append(index)
    most = MOST_LISTED
    while sum(min(most, len(indices)) for indices in by_reason.values()) > _MOST_FAULT_LINES:
        most -= 1
    shown = sorted(index for indices in by_reason.values() for index in indices[:most])
    lines = report.fault_lines()
    listed = [shortened(lines[index]) for index in shown]
    if len(shown) < len(lines):
        path = write_list()
        listed.append(f"and {len(lines) - len(shown)} more" + (f"; all of them: {path}" if path else ""))
    return listed


def shortened(text: str, most: int = _LONGEST_LINE) -> str:
    """Return printable text of at most `most` characters, its middle left out where it is longer."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most * 2 // 3]}...{text[3 - most // 3 :]}"


def listed(items: Sequence[str], most: int = MOST_LISTED) -> str:
    """Return quoted items with commas between them, the first ones of many."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(f"'{shortened(item)}'" for item in items[:most]) + more


def kind_lines(faults: Iterable[Fault], sound: str = "") -> list[str]:
    """Return a line on what faulty files look like and what can be done with them; none where they are unlike all.

    Args:
        faults: of the files, by name.
        sound: name of the first sound file, where there is one.
    """
    alike = [fault for fault in faults if fault.kind]
    kinds = Counter(fault.kind for fault in alike).most_common(1)
    lines = []
    for kind, count in kinds:
        first = quoted(next(fault.name for fault in alike if fault.kind == kind))
        others = f", the first of the others is {quoted(sound)}" if sound else ""
        lines.append(f"{count} files look like {kind}, the first is {first}{others}: {EXPECTED}. {ADVICE[kind]}.")
    return lines


def check_acceptable(
    report: FaultReport,
    signatures: Sequence[tuple[Signature, int]],
    path: Path,
    dataset: str,
    allow_faulty: bool,
    write_list: Callable[[], Path | None] = lambda: None,
    sound: str = "",
) -> None:
    """Check that a zoo is sound enough to be used: few faults, one architecture, one shape.

    Args:
        report: faults of the zoo.
        signatures: the signatures and their counts, the most common first.
        path, dataset: of the zoo, for messages.
        allow_faulty: use the sound checkpoints of the most common shape, however few they are.
        write_list: see `listed_lines`.
        sound: name of the first sound checkpoint.

    Raises:
        ZooError: more than 5 % carry unknown keys, have another shape or are faulty, or none is sound. The message
            lists faults of each reason.
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
        keys = [f"'{shortened(key, 60)}' ({count})" for key, count in report.stray_key_counts().items()]
        more = f" and {len(keys) - MOST_LISTED} more" if len(keys) > MOST_LISTED else ""
        carried = f"{', '.join(keys[:MOST_LISTED])}{more}"
        problems.insert(0, f"another architecture: {stray} {share} carry unknown keys: {carried}")
        hint = ""
    others, outside = faulty, sum(fault.reason is Reason.OUTSIDE for fault in report.faults)
    if 100 * outside > allowed and (faulty == examined or not allow_faulty):
        others -= outside
        labels = f"{outside} of {examined} labels (more than {ALLOWED_SHARE} %) lie outside [0, 1]"
        problems.append(f"{labels}, --task regress learns any number")
    if 100 * others > allowed and not allow_faulty:
        problems.append(f"{others} {share} are faulty")
    if faulty == examined:
        problems.append(f"none of the {examined} checkpoints can be used")
        hint = ""
    if problems:
        first = f"{path}, data set {quoted(dataset)}: {'; '.join(problems)}{hint}"
        lines = [f"  {line}" for line in listed_lines(report, write_list)]
        raise ZooError(bounded("\n".join([first, *lines, *kind_lines(report.faults, sound), report.summary()])))


def _shape_lines(signatures: Sequence[tuple[Signature, int]]) -> list[str]:
    """Return a line for each signature: its count, and the sizes that vary among the signatures."""
    listed = [(dict(signature.shapes), signature.heads, count) for signature, count in signatures]
    keys = list(dict.fromkeys(key for shapes, _, _ in listed for key in shapes))
    varying = [key for key in keys if len({shapes.get(key) for shapes, _, _ in listed}) > 1]
    lines = []
    for shapes, heads, count in listed[:MOST_LISTED]:
        sizes = [f"'{key}' {shapes.get(key, 'absent')}" for key in varying[:_MOST_KEYS]]
        lines.append(f"{count} checkpoints: {', '.join([f'{heads} heads', *sizes])}")
    more = len(listed) - MOST_LISTED
    return [*lines, f"and {more} more shapes"] if more > 0 else lines
