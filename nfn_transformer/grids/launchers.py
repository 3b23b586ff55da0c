"""Where cells run: as processes of this machine, or as jobs of submitit, here or in a SLURM cluster."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from nfn_transformer import atomic_files
from nfn_transformer.errors import UserError
from nfn_transformer.grids.cell_runner import CellTask

LAUNCHERS = ("processes", "local", "slurm")

# A cluster should not be asked more often how its jobs are.
_SLURM_SECONDS = 5.0
_STOPPING_SECONDS = 60.0


class RunningCell(Protocol):
    """A cell that was started."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""


class Launcher(Protocol):
    """Starts cells. `slots` is how many may run at once."""

    slots: int

    def start(self, task: CellTask, slot: int) -> RunningCell:
        """Start a cell in a slot, a number below `slots`, that no running cell has."""

    def stop(self, running: list[RunningCell]) -> str:
        """Stop what is running, where it should stop with the driver; returns what to tell the user."""


def build_launcher(
    kind: str, jobs: int | None, environments: list[dict[str, str]], folder: Path, parameters: Mapping[str, str]
) -> Launcher:
    """A launcher of one of LAUNCHERS.

    Args:
        kind: processes, local or slurm.
        jobs: cells at once; None means one, in a cluster as many as there are.
        environments: what each slot of this machine adds to the environment.
        folder: where submitit keeps its files.
        parameters: for `AutoExecutor.update_parameters` of submitit.

    Raises:
        UserError: submitit or SLURM is not there, or refuses a parameter.
    """
    if kind == "processes":
        return ProcessLauncher(environments)
    return SubmititLauncher(kind, jobs or (1 if kind == "local" else 10_000), environments, folder, parameters)


class ProcessLauncher:
    """Processes of this machine, each with its slot's environment."""

    def __init__(self, environments: list[dict[str, str]]):
        self.environments, self.slots = environments, len(environments)

    def start(self, task: CellTask, slot: int) -> "ProcessCell":
        """Start a process."""
        return ProcessCell(task, self.environments[slot])

    def stop(self, running: list["ProcessCell"]) -> str:
        """Interrupt all, and wait until they have written down what they have."""
        return _interrupt_all(running)


class ProcessCell:
    """A cell as a process of this machine."""

    def __init__(self, task: CellTask, environment: dict[str, str]):
        self._process = _start(task, environment, subprocess.DEVNULL)

    def done(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def interrupt(self) -> None:
        """Send SIGINT."""
        _interrupt(self._process)


def _start(task: CellTask, environment: dict[str, str], output: int | None) -> subprocess.Popen:
    # In a session of its own: Ctrl-C on a terminal reaches whoever started it, who then interrupts the cell once.
    return subprocess.Popen(
        task.words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def _interrupt(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


class CellJob:
    """A cell as submitit calls it. Where SLURM ends a job at its time limit it is queued again, and goes on."""

    def __init__(self, task: CellTask, environment: dict[str, str]):
        self.task, self.environment = task, environment

    def __call__(self) -> int:
        """Run the cell; returns its exit status. An interrupt is passed on to it, once."""
        process = _start(self.task, self.environment, None)
        try:
            return process.wait()
        except KeyboardInterrupt:
            _interrupt(process)
            return process.wait()

    def checkpoint(self):
        """What submitit queues in place of a job that was stopped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SubmititLauncher:
    """Jobs of submitit: processes of this machine (`local`), or of a cluster (`slurm`)."""

    def __init__(
        self, cluster: str, slots: int, environments: list[dict[str, str]], folder: Path, parameters: Mapping[str, str]
    ):
        try:
            import submitit
        except ImportError:
            raise UserError(f"--launcher {cluster} needs the package submitit: pip install submitit") from None
        self.cluster, self.slots, self.environments, self.folder = cluster, slots, environments, folder
        self._queue = SlurmQueue()
        # submitit logs what this program reports itself.
        submitit.core.core.logger.get_logger().setLevel("ERROR")
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(**{"timeout_min": 24 * 60, **_typed(parameters)})
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"--launcher {cluster}: {error}") from None

    def start(self, task: CellTask, slot: int) -> "SubmittedCell":
        """Submit a job, unless the cluster still has one for this cell from an earlier command."""
        note = Path(f"{task.directory}.job")
        if self.cluster == "slurm":
            known = note.read_text().strip() if note.is_file() else ""
            if known and self._queue.has(known, fresh=True):
                return SubmittedCell(known, task, None, self._queue)
            job = self._submit(CellJob(task, {}))
            atomic_files.write_text(note, f"{job.job_id}\n")
            return SubmittedCell(job.job_id, task, job, self._queue)
        job = self._submit(CellJob(task, self.environments[slot % len(self.environments)]))
        return SubmittedCell(job.job_id, task, job, None)

    def _submit(self, job: CellJob):
        from submitit.core.utils import FailedJobError

        try:
            return self._executor.submit(job)
        except FailedJobError as error:
            raise UserError(f"--launcher {self.cluster}: the job was refused: {error}") from None

    def stop(self, running: list["SubmittedCell"]) -> str:
        """Interrupt processes of this machine; jobs in a cluster go on, and are found again."""
        if self.cluster == "local":
            return _interrupt_all(running)
        numbers = " ".join(cell.job_id for cell in running)
        return f"the jobs in SLURM go on (to end them: scancel {numbers})" if numbers else ""


class SubmittedCell:
    """A cell as a job of submitit; `queue` is SLURM's, or None on this machine."""

    def __init__(self, job_id: str, task: CellTask, job, queue: "SlurmQueue | None"):
        self.job_id, self._task, self._job, self._queue = job_id, task, job, queue
        self._missed = 0

    def done(self) -> bool:
        """Whether the job has ended. Its result is the run directory; submitit's own pickle is not read."""
        if self._queue is None:
            return self._job.done()
        if self._task.finished:
            return True
        # A job is not in the queue for a moment after it was submitted; one that stays away has ended.
        present = self._queue.has(self.job_id)
        if present is not None:
            self._missed = 0 if present else self._missed + 1
        return self._missed >= 2

    def interrupt(self) -> None:
        """Send SIGINT to the job, which passes it on."""
        self._job.cancel(check=False)


class SlurmQueue:
    """Which jobs of this user SLURM still has; needs no accounting database."""

    def __init__(self):
        self._jobs: set[str] = set()
        self._asked = -_SLURM_SECONDS
        self._seen: dict[str, float] = {}

    def has(self, job_id: str, fresh: bool = False) -> bool | None:
        """Whether the job waits or runs; None where nothing new was learnt since this was last asked of it."""
        now = time.monotonic()
        if fresh or now - self._asked >= _SLURM_SECONDS:
            self._ask()
        if not fresh and self._seen.get(job_id) == self._asked:
            return None
        self._seen[job_id] = self._asked
        return job_id in self._jobs

    def _ask(self) -> None:
        words = ["squeue", "--me", "--noheader", "--format", "%A"]
        found = subprocess.run(words, capture_output=True, text=True, check=False)
        if found.returncode == 0:  # a controller that is away for a moment says nothing on the jobs
            self._jobs, self._asked = set(found.stdout.split()), time.monotonic()
        else:
            print(f"warning: squeue: {found.stderr.strip()}", file=sys.stderr)


def _interrupt_all(running: list) -> str:
    for cell in running:
        cell.interrupt()
    end = time.monotonic() + _STOPPING_SECONDS
    while any(not cell.done() for cell in running) and time.monotonic() < end:
        time.sleep(0.1)
    return ""


def _typed(parameters: Mapping[str, str]) -> dict[str, str | int]:
    return {name: int(value) if value.isdecimal() else value for name, value in parameters.items()}
