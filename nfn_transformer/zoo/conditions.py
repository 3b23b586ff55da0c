"""Conditions on a zoo's metadata, as `n_layers=2,optimizer=adam`: which of its rows are read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.printing import quoted


@dataclass(frozen=True)
class Condition:
    """What rows must have: pairs of a column's name and its value, which is compared as a number where both are."""

    wanted: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """The condition that a text like `n_layers=2,optimizer=adam` stands for; none where it is empty.

        Raises:
            ZooError: it is no such text, or names a column twice.
        """
        parts = [part.partition("=") for part in text.split(",")] if text.strip() else []
        wanted = tuple((column.strip(), value.strip()) for column, _, value in parts)
        if not all(column and sign and value for (column, value), (_, sign, _) in zip(wanted, parts, strict=True)):
            raise ZooError(f"--where {quoted(text)}: expected COLUMN=VALUE, or several with commas between them")
        if twice := [column for column, count in Counter(column for column, _ in wanted).items() if count > 1]:
            raise ZooError(f"--where {quoted(text)}: {quoted(twice[0])} stands twice")
        return cls(tuple(sorted(wanted)))

    def __str__(self) -> str:
        return ",".join(f"{column}={value}" for column, value in self.wanted)

    def places(self, header: Sequence[str], where: str) -> list[int]:
        """Where a table with this header has the columns.

        Raises:
            ZooError: it lacks one; the message lists those that are there.
        """
        for column, _ in self.wanted:
            if column not in header:
                there = ", ".join(quoted(name) for name in header)
                raise ZooError(f"{where}: --where {quoted(str(self))}: no column {quoted(column)}; there are {there}")
        return [header.index(column) for column, _ in self.wanted]

    def holds(self, cells: Sequence[str]) -> bool:
        """Whether a row with these cells in the columns has the values."""
        return all(_same(cell, value) for cell, (_, value) in zip(cells, self.wanted, strict=True))


def _same(found: str, wanted: str) -> bool:
    if found == wanted:
        return True
    try:
        return "_" not in found + wanted and float(found) == float(wanted)
    except ValueError:
        return False
