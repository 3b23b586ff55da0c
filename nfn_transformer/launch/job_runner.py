"""Run one cell in a process of its own: alone, once, from where an earlier attempt was stopped.

python -m nfn_transformer.launch.job_runner TASK, where TASK is the JSON of a CellTask.

Nothing heavy is imported here: this process becomes the command.
"""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class CellTask:
    """What running a cell takes; all of it text, so that it can be sent to another machine.

    Fields: directory, of the run; log, file that the command's words go to; lock, file that one process at a time
    holds; begin and resume, the words of the command, program first.
    """

    directory: str
    log: str
    lock: str
    begin: tuple[str, ...]
    resume: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The words of a process that runs the cell."""
        return [sys.executable, "-m", "nfn_transformer.launch.job_runner", json.dumps(asdict(self))]

    @property
    def finished(self) -> bool:
        """Whether the run has its results."""
        return (Path(self.directory) / "results.json").is_file()


def run(task: CellTask) -> int:
    """Become the command once nobody else works on the cell; returns only where there is nothing left to do."""
    # A driver in a shell's background ignores SIGINT, and so would the command, which is stopped by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = os.open(task.lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Held by every process that has inherited it: also by a command whose driver was killed.
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        print("warning: this file system has no locks; do not run one cell twice at once", file=sys.stderr)
    if task.finished:
        return 0
    os.set_inheritable(lock, True)
    words = task.resume if (Path(task.directory) / "config.json").is_file() else task.begin
    print(f"$ {' '.join(words)}", flush=True)
    # Unbuffered, so that the log is in order, and can be watched.
    os.execve(sys.executable, [sys.executable, *words], {**os.environ, "PYTHONUNBUFFERED": "1"})
    raise AssertionError("unreachable")


def main(arguments: Sequence[str]) -> int:
    """Run the task in the only argument."""
    return run(CellTask(**json.loads(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
