"""Running the cells that are not finished yet, a few at once, and telling how far they are."""

import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nfn_transformer.errors import UserError
from nfn_transformer.grids.cells import Cell
from nfn_transformer.launch.launchers import Launcher, Refused, RunningCell

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 5.0
_ROOM_SECONDS = 60.0


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
        UserError: the launcher takes no cell at all.
    """
    return _Execution(cells, launcher).run()


class _Execution:
    """What waits, what runs in which slot, and what has failed."""

    def __init__(self, cells: Sequence[Cell], launcher: Launcher):
        self.launcher, self.total = launcher, len(cells)
        self.waiting = deque(cell for cell in cells if not cell.task.finished)
        self.running: dict[int, tuple[Cell, RunningCell, float]] = {}
        self.failures: list[Failure] = []
        self.clock = _Clock(cells, launcher.slots)
        self.last_end = self.retry = -math.inf

    def run(self) -> list[Failure]:
        done = self.total - len(self.waiting)
        with tqdm(total=self.total, initial=done, unit=" cells", disable=None, leave=False) as bar:
            try:
                while self.waiting or self.running:
                    self._start()
                    ended = [slot for slot, (_, started, _) in self.running.items() if started.done()]
                    for slot in ended:
                        self._end(slot)
                        bar.update()
                    bar.set_postfix_str(f"{len(self.failures)} failed, {self._left()}")
                    if not ended:
                        time.sleep(_POLL_SECONDS)
            except BaseException as error:
                advice = self.launcher.stop([started for _, started, _ in self.running.values()])
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted(advice) from None
                raise
        return self.failures

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.launcher.slots and time.monotonic() >= self.retry:
            cell = self.waiting[0]
            slot = next(slot for slot in range(len(self.running) + 1) if slot not in self.running)
            try:
                started = self.launcher.start(cell.task, slot)
            except Refused as error:
                now = time.monotonic()
                if not self.running and now - self.last_end > _ROOM_SECONDS:
                    raise UserError(f"{error}; --jobs N sends fewer at once") from None
                # When one of them has ended, which takes a moment after its cell has, there may be room.
                self.retry = now + _RETRY_SECONDS
                return
            self.waiting.popleft()
            self.running[slot] = (cell, started, time.monotonic())
            _say(f"{cell.name}: {started.said}, log {cell.task.log}")

    def _end(self, slot: int) -> None:
        cell, started, start = self.running.pop(slot)
        self.last_end = time.monotonic()
        seconds = self.last_end - start
        failure, line = _ending(cell, started, seconds)
        if failure:
            self.failures.append(failure)
        else:
            self.clock.end(cell, seconds)
        _say(f"[{self.total - len(self.waiting) - len(self.running)}/{self.total}] {line}; {self._left()}")

    def _left(self) -> str:
        return self.clock.left(self.waiting, [(cell, start) for cell, _, start in self.running.values()])


def _say(line: str) -> None:
    tqdm.write(line)
    sys.stdout.flush()  # it may be a file that somebody watches


def _ending(cell: Cell, started: RunningCell, seconds: float) -> tuple[Failure | None, str]:
    try:
        result = cell.result()
    except UserError as error:
        return Failure(cell.name, cell.task.log, str(error)), f"{cell.name}: failed: {error}"
    if result is None:
        log = Path(cell.task.log)
        if not log.is_file() and started.log is not None:
            log = started.log  # it has not come so far as to have a log of its own
        words = "; ".join(filter(None, [started.ending, last_line(log)]))
        return Failure(cell.name, str(log), words), f"{cell.name}: failed, see {log}"
    return None, f"{cell.name}: tau {result.tau:.4f} ({duration(seconds)})"


def last_line(log: Path) -> str:
    """The end of a log: of an error its message."""
    try:
        text = log.read_text(errors="replace").replace("\r", "\n")
    except OSError:
        return "(there is no log)"
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "(the log is empty)")


def duration(seconds: float) -> str:
    """Seconds as one reads them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class _Clock:
    """Guesses the time left from how long finished cells of the same row have taken, else any.

    Where all cells are sent off at once, nobody here knows which of them only wait: then from how often one ends.
    """

    def __init__(self, cells: Sequence[Cell], slots: int):
        self._slots, self._queued = slots, slots >= len(cells) > 1
        self._start, self._ended = time.monotonic(), 0
        self._seconds: dict[str, list[float]] = {}
        for cell in cells:
            if cell.task.finished and (seconds := cell.seconds()) is not None:
                self.note(cell, seconds)

    def end(self, cell: Cell, seconds: float) -> None:
        """A cell has ended well, and has taken so long."""
        self._ended += 1
        self.note(cell, seconds)

    def note(self, cell: Cell, seconds: float) -> None:
        """A cell takes so long."""
        self._seconds.setdefault(cell.row, []).append(seconds)

    def left(self, waiting: Sequence[Cell], running: Sequence[tuple[Cell, float]]) -> str:
        """The time left, for the screen."""
        if not waiting and not running:
            return "done"
        everything = [seconds for row in self._seconds.values() for seconds in row]
        if not everything:
            return f"{len(waiting) + len(running)} to go"

        def expected(cell: Cell) -> float:
            known = self._seconds.get(cell.row, everything)
            return sum(known) / len(known)

        now = time.monotonic()
        if self._queued and self._ended:
            count = len(waiting) + len(running)
            return f"{count} to go, about {duration(count * (now - self._start) / self._ended)} left"
        rest = [expected(cell) for cell in waiting] + [max(0.0, expected(c) - (now - begun)) for c, begun in running]
        parallel = max(1, min(self._slots, len(rest)))
        return f"{len(rest)} to go, about {duration(max(sum(rest) / parallel, max(rest)))} left"
