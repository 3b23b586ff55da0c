"""What is wrong with a zoo's checkpoints: each fault with its reason, counted, summed up and listed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nfn_transformer.csv_files import csv_text
from nfn_transformer.zoo.printing import printable, quoted


class Reason(StrEnum):
    """Why a checkpoint is left out."""

    UNREADABLE = "unreadable"
    MISSING = "missing"
    MISSING_KEY = "missing key"
    SHAPE = "shape differs"
    NOT_FINITE = "not finite"
    LABEL = "label"


@dataclass(frozen=True)
class Fault:
    """A checkpoint that is left out: its file name, why, and what was found."""

    name: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class FaultReport:
    """What was found in the metadata rows of one epoch, and in the files that they name.

    Fields: examined, the number of distinct rows; faults, the checkpoints that are left out, by file name.
    Counted only: stray_keys, file name -> unknown keys that its checkpoint carries; duplicates, file
    names that stand in more than one row; unlisted, checkpoint files that no row of the table names.
    """

    examined: int
    faults: tuple[Fault, ...] = ()
    stray_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    duplicates: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def used(self) -> int:
        """Number of checkpoints that are used."""
        return self.examined - len(self.faults)

    def counts(self) -> dict[Reason, int]:
        """Number of faults by reason, for the reasons that occur."""
        found = Counter(fault.reason for fault in self.faults)
        return {reason: found[reason] for reason in Reason if found[reason]}

    def stray_key_counts(self) -> dict[str, int]:
        """Unknown key -> number of checkpoints that carry it, the most frequent first."""
        return dict(Counter(key for keys in self.stray_keys.values() for key in keys).most_common())

    def summary(self) -> str:
        """Some lines for the screen: what is used, what is left out by reason, and what was only counted."""
        lines = [f"{self.used} of {self.examined} checkpoints can be used"]
        if self.faults:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts().items())
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
        """One printable line per fault: file name, reason and detail."""
        return [printable(f"{fault.name}: {fault.reason}: {fault.detail}") for fault in self.faults]

    def csv(self) -> str:
        """All of the report as CSV with the columns file, used, reason and detail.

        Names and keys stand as they are, so a name that is not UTF-8 has surrogates: write it with
        `errors="backslashreplace"`.
        """
        rows = [[fault.name, "no", fault.reason, fault.detail] for fault in self.faults]
        rows += [[name, "no", "no metadata row", ""] for name in self.unlisted]
        left_out = {fault.name for fault in self.faults}
        notes = [(name, "unknown keys", " ".join(keys)) for name, keys in self.stray_keys.items()]
        notes += [(name, "more than one metadata row", "") for name in self.duplicates]
        rows += [[name, "no" if name in left_out else "yes", *note] for name, *note in sorted(notes)]
        return csv_text(["file", "used", "reason", "detail"], rows)
