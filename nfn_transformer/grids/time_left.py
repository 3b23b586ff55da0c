"""The time that a grid still takes, estimated from the cells that are finished."""

import time
from collections.abc import Sequence

from nfn_transformer.grids.cells import Cell
from nfn_transformer.training.results import duration


class TimeLeft:
    """Estimate of the time left from the durations of finished cells of the same row, else of any row.

    If all cells are submitted at once, cells that run cannot be told from cells that wait.
    The estimate then follows from the rate at which cells end.
    """

    def __init__(self, cells: Sequence[Cell], slots: int):
        self._slots, self._all_at_once = slots, slots >= len(cells) > 1
        self._start, self._ended = time.monotonic(), 0
        self._seconds: dict[str, list[float]] = {}  # row -> of each finished cell
        for cell in cells:
            if cell.job.is_finished() and (seconds := cell.seconds()) is not None:
                self._seconds.setdefault(cell.row, []).append(seconds)

    def end(self, cell: Cell, seconds: float) -> None:
        """Note that a cell has ended well after `seconds`."""
        self._ended += 1
        self._seconds.setdefault(cell.row, []).append(seconds)

    def text(self, waiting: Sequence[Cell], running: Sequence[tuple[Cell, float]]) -> str:
        """Return the time left for the screen.

        Args:
            waiting: cells that wait.
            running: cells that run, and when each was started.
        """
        if not waiting and not running:
            return "done"
        everything = [seconds for row in self._seconds.values() for seconds in row]
        if not everything:
            return f"{len(waiting) + len(running)} to go"

        def expected(cell: Cell) -> float:
            known = self._seconds.get(cell.row, everything)
            return sum(known) / len(known)

        now = time.monotonic()
        if self._all_at_once and self._ended:
            count = len(waiting) + len(running)
            return f"{count} to go, about {duration(count * (now - self._start) / self._ended)} left"
        rest = [expected(cell) for cell in waiting]
        rest += [max(0.0, expected(cell) - (now - start)) for cell, start in running]
        parallel = max(1, min(self._slots, len(rest)))
        return f"{len(rest)} to go, about {duration(max(sum(rest) / parallel, max(rest)))} left"
