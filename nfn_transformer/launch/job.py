"""A job: a command that runs alone, once, and goes on from where an earlier attempt was stopped.

python -m nfn_transformer.launch.job JOB, where JOB is the JSON of a Job.

Nothing heavy is imported here: this process becomes the job's command.
"""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_OF_SEVERAL_PROCESSES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Job:
    """A command and the files that tell its state; all fields are text, for sending to another machine."""

    path: str
    """Prefix of the job's files: PATH.log, PATH.lock, and PATH.job for the number of its SLURM job."""
    finished_file: str
    """File that exists once the job is finished, or nearly; see `state_file`."""
    begin: tuple[str, ...]
    """Arguments of Python that start the job."""
    state_file: str | None = None
    """File that exists, where it is not None, until nothing is left to do: it goes last."""
    begun_file: str | None = None
    """File that exists once the job can be resumed; None if every attempt starts anew."""
    resume: tuple[str, ...] = ()
    """Arguments of Python that resume the job."""

    @property
    def name(self) -> str:
        """Last component of the path."""
        return Path(self.path).name

    @property
    def log(self) -> Path:
        """File of the command's output."""
        return Path(f"{self.path}.log")

    @property
    def lock(self) -> Path:
        """File that one process at a time holds locked."""
        return Path(f"{self.path}.lock")

    @property
    def note(self) -> Path:
        """File with the number of the SLURM job that runs this job."""
        return Path(f"{self.path}.job")

    def is_finished(self) -> bool:
        """Return whether the job is finished."""
        left = self.state_file is not None and Path(self.state_file).is_file()
        return Path(self.finished_file).is_file() and not left

    def argv(self) -> list[str]:
        """Return the argument vector of a process that runs the job."""
        return [sys.executable, "-m", "nfn_transformer.launch.job", json.dumps(asdict(self))]


def run(job: Job) -> int:
    """Become the job's command once no other process works on it; return only if the job is finished."""
    # A driver in a shell's background ignores SIGINT, and its children inherit that; the job must stop at SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = os.open(job.lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # The command inherits the lock, and holds it even if its driver is killed.
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        print("warning: this file system has no locks; do not run one job twice at once", file=sys.stderr)
    if job.is_finished():
        return 0
    os.set_inheritable(lock, True)
    is_begun = job.begun_file is not None and Path(job.begun_file).is_file()
    argv = job.resume if is_begun else job.begin
    print(f"$ {' '.join(argv)}", flush=True)
    # A job is one process, also where its driver was started by torchrun or in a container with such variables.
    environment = {name: value for name, value in os.environ.items() if name not in _OF_SEVERAL_PROCESSES}
    # Unbuffered, so that the log is in order and can be watched.
    os.execve(sys.executable, [sys.executable, *argv], {**environment, "PYTHONUNBUFFERED": "1"})
    raise AssertionError("unreachable")


def main(arguments: Sequence[str]) -> int:
    """Run the job in the only argument."""
    return run(Job(**json.loads(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
