"""Run the unfinished cells of a grid, several at once, and report the progress."""

import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from nfn_transformer.errors import UserError
from nfn_transformer.grids.cells import Cell
from nfn_transformer.grids.time_left import TimeLeft
from nfn_transformer.launch.launchers import Launcher, Refused, RunningJob, why_unfinished
from nfn_transformer.training.results import duration
from nfn_transformer.training.tasks import TASKS

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Failure:
    """A cell that ended without a result."""

    name: str
    """Name of the cell."""
    log: str
    """Path of its log."""
    reason: str
    """Reason, usually the last line of the log."""


class Interrupted(Exception):
    """Ctrl-C, with advice for the user."""

    def __init__(self, advice: str):
        super().__init__(advice)
        self.advice = advice


def run_cells(cells: Sequence[Cell], launcher: Launcher) -> list[Failure]:
    """Run the unfinished cells; return those that failed, which stop no other.

    Raises:
        Interrupted: on Ctrl-C, after the cells were stopped; what they have is kept.
        UserError: the launcher takes no cell at all.
    """
    return _Execution(cells, launcher).run()


class _Execution:
    """Cells that wait, that run, by slot, and that failed."""

    def __init__(self, cells: Sequence[Cell], launcher: Launcher):
        self.launcher, self.total = launcher, len(cells)
        self.waiting = deque(cell for cell in cells if not cell.job.is_finished())
        self.running: dict[int, tuple[Cell, RunningJob, float]] = {}
        self.failures: list[Failure] = []
        self.time_left = TimeLeft(cells, launcher.slots)
        self.last_end = self.next_try = -math.inf

    def run(self) -> list[Failure]:
        done = self.total - len(self.waiting)
        with tqdm(total=self.total, initial=done, unit=" cells", disable=None, leave=False) as bar:
            try:
                while self.waiting or self.running:
                    self._start()
                    ended = [slot for slot, (_, job, _) in self.running.items() if job.done()]
                    for slot in ended:
                        self._end(slot)
                        bar.update()
                    bar.set_postfix_str(f"{len(self.failures)} failed, {self._left()}")
                    if not ended:
                        time.sleep(_POLL_SECONDS)
            except BaseException as error:
                advice = self.launcher.stop([job for _, job, _ in self.running.values()])
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted(advice) from None
                raise
        return self.failures

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.launcher.slots and time.monotonic() >= self.next_try:
            cell = self.waiting[0]
            slot = next(slot for slot in range(len(self.running) + 1) if slot not in self.running)
            try:
                job = self.launcher.start(cell.job, slot)
            except Refused as error:
                now = time.monotonic()
                if not self.running and now - self.last_end > _PATIENCE_SECONDS:
                    raise UserError(f"{error}; --jobs N sends fewer at once") from None
                # A cluster may accept the cell once it has noticed, after a moment, the end of another one.
                self.next_try = now + _RETRY_SECONDS
                return
            self.waiting.popleft()
            self.running[slot] = (cell, job, time.monotonic())
            _print_above_bar(f"{cell.name}: {job.start_message}, log {cell.job.log}")

    def _end(self, slot: int) -> None:
        cell, job, start = self.running.pop(slot)
        self.last_end = time.monotonic()
        seconds = self.last_end - start
        try:
            result = cell.result()
        except UserError as error:
            self.failures.append(Failure(cell.name, str(cell.job.log), str(error)))
            line = f"{cell.name}: failed: {error}"
        else:
            if result is None:
                log, reason = why_unfinished(job)
                self.failures.append(Failure(cell.name, str(log), reason))
                line = f"{cell.name}: failed, see {log}"
            else:
                self.time_left.end(cell, seconds)
                line = f"{cell.name}: {TASKS[result.task].score.key} {result.score:.4f} ({duration(seconds)})"
        _print_above_bar(f"[{self.total - len(self.waiting) - len(self.running)}/{self.total}] {line}; {self._left()}")

    def _left(self) -> str:
        return self.time_left.text(self.waiting, [(cell, start) for cell, _, start in self.running.values()])


def _print_above_bar(line: str) -> None:
    tqdm.write(line)
    sys.stdout.flush()  # it may be a file that somebody watches
