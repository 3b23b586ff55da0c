"""Running the cells that are not finished yet, a few at once, and telling how far they are."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nfn_transformer.errors import UserError
from nfn_transformer.grids.cells import Cell
from nfn_transformer.grids.launchers import Launcher, RunningCell

_POLL_SECONDS = 0.2
_LINES_OF_LOG = 5


@dataclass(frozen=True)
class Failure:
    """A cell that ended without a result: its name, its log, and the end of what that holds."""

    name: str
    log: str
    last_words: str


class Interrupted(Exception):
    """Ctrl-C; `advice` is what to tell the user."""

    def __init__(self, advice: str):
        super().__init__(advice)
        self.advice = advice


def run_cells(cells: Sequence[Cell], launcher: Launcher) -> list[Failure]:
    """Run the unfinished ones of the cells; returns those that failed, which stop no other.

    Raises:
        Interrupted: on Ctrl-C, after the cells were stopped; what they have is kept.
    """
    waiting = [cell for cell in cells if not cell.task.finished]
    clock = _Clock(cells, launcher.slots)
    running: dict[int, tuple[Cell, RunningCell, float]] = {}
    failures: list[Failure] = []
    total = len(cells)
    with tqdm(total=total, initial=total - len(waiting), unit=" cells", disable=None, leave=False) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < min(launcher.slots, len(cells)):
                    cell, slot = waiting.pop(0), _free_slot(running)
                    running[slot] = (cell, launcher.start(cell.task, slot), time.monotonic())
                ended = [slot for slot, (_, started, _) in running.items() if started.done()]
                for slot in ended:
                    cell, _, start = running.pop(slot)
                    seconds = time.monotonic() - start
                    failure, line = _ending(cell, seconds)
                    failures.extend([failure] if failure else [])
                    clock.note(cell, seconds)
                    bar.update()
                    left = clock.left(waiting, [(other, begun) for other, _, begun in running.values()])
                    bar.set_postfix_str(f"{len(failures)} failed, {left}")
                    tqdm.write(f"[{total - len(waiting) - len(running)}/{total}] {line}; {left}")
                    sys.stdout.flush()  # it may be a file that somebody watches
                if not ended:
                    time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            advice = launcher.stop([started for _, started, _ in running.values()])
            raise Interrupted(advice) from None
    return failures


def _free_slot(running: dict) -> int:
    return next(slot for slot in range(len(running) + 1) if slot not in running)


def _ending(cell: Cell, seconds: float) -> tuple[Failure | None, str]:
    try:
        result = cell.result()
    except UserError as error:
        return Failure(cell.name, cell.task.log, str(error)), f"{cell.name}: failed: {error}"
    if result is None:
        return (
            Failure(cell.name, cell.task.log, last_lines(Path(cell.task.log))),
            f"{cell.name}: failed, see {cell.task.log}",
        )
    return None, f"{cell.name}: tau {result.tau:.4f} ({duration(seconds)})"


def last_lines(log: Path) -> str:
    """The end of a log."""
    try:
        text = log.read_text(errors="replace").replace("\r", "\n")
    except OSError:
        return "(there is no log)"
    return "\n".join([line for line in text.splitlines() if line.strip()][-_LINES_OF_LOG:])


def duration(seconds: float) -> str:
    """Seconds as one reads them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class _Clock:
    """Guesses the time left from how long finished cells of the same row have taken, else any."""

    def __init__(self, cells: Sequence[Cell], slots: int):
        self._slots = slots
        self._seconds: dict[str, list[float]] = {}
        for cell in cells:
            if cell.task.finished and (seconds := cell.seconds()) is not None:
                self.note(cell, seconds)

    def note(self, cell: Cell, seconds: float) -> None:
        """A cell has taken so long."""
        self._seconds.setdefault(cell.row, []).append(seconds)

    def left(self, waiting: Sequence[Cell], running: Sequence[tuple[Cell, float]]) -> str:
        """The time left, for the screen."""
        if not waiting and not running:
            return "done"
        everything = [seconds for row in self._seconds.values() for seconds in row]

        def expected(cell: Cell) -> float:
            known = self._seconds.get(cell.row, everything)
            return sum(known) / len(known)

        now = time.monotonic()
        rest = [expected(cell) for cell in waiting] + [max(0.0, expected(c) - (now - begun)) for c, begun in running]
        parallel = max(1, min(self._slots, len(rest)))
        return f"{len(rest)} to go, about {duration(max(sum(rest) / parallel, max(rest)))} left"
