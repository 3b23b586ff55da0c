"""Where cells run: as processes of this machine, or as jobs of submitit, here or in a SLURM cluster."""

import getpass
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from nfn_transformer import atomic_files
from nfn_transformer.errors import UserError
from nfn_transformer.launch.job_runner import CellTask

LAUNCHERS = ("processes", "local", "slurm")

# A cluster should not be asked more often how its jobs are.
_SLURM_SECONDS = 5.0
_STOPPING_SECONDS = 60.0
_LATE_FILES_SECONDS = 60.0


class Refused(UserError):
    """A launcher takes no further cell now."""


class RunningCell(Protocol):
    """A cell that was started.

    Attributes: log, where its launcher speaks of it, or None where only the cell does; said, how it was started;
    ending, what its launcher knows of its end, if anything.
    """

    log: Path | None
    said: str
    ending: str

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""


class Launcher(Protocol):
    """Starts cells. `slots` is how many may run at once."""

    slots: int

    def start(self, task: CellTask, slot: int) -> RunningCell:
        """Start a cell in a slot, a number below `slots`, that no running cell has.

        Raises:
            Refused: it cannot be started now.
        """

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
    """Distributed of this machine, each with its slot's environment."""

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
        self._process, self.log = _start(task, environment), None
        self.said, self.ending = "started", ""

    def done(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def interrupt(self) -> None:
        """Send SIGINT."""
        _interrupt(self._process)


def _start(task: CellTask, environment: dict[str, str]) -> subprocess.Popen:
    with open(task.log, "ab") as log:
        # In a session of its own: Ctrl-C on a terminal reaches whoever started it, who then interrupts the cell once.
        return subprocess.Popen(
            task.words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
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
        environment = dict(self.environment)
        if "SLURM_CPUS_PER_TASK" in os.environ and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = os.environ["SLURM_CPUS_PER_TASK"]
        process = _start(self.task, environment)
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
        self._queue = SlurmQueue() if cluster == "slurm" else None
        # submitit logs what this program reports itself.
        submitit.core.core.logger.get_logger().setLevel("ERROR")
        # A job that reaches its time limit goes on in another one, as often as it takes.
        again = {"slurm_max_num_timeout": 1000} if cluster == "slurm" else {}
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster, **again)
            self._executor.update_parameters(**{"timeout_min": 24 * 60, **_typed(parameters)})
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"--launcher {cluster}: {error}") from None

    def start(self, task: CellTask, slot: int) -> "SubmittedCell":
        """Submit a job, unless the cluster still has one for this cell from an earlier command."""
        environment = {} if self._queue else self.environments[slot % len(self.environments)]
        note = Path(f"{task.directory}.job")
        known = note.read_text().strip() if self._queue and note.is_file() else ""
        if known and known in self._queue.at_first():
            return SubmittedCell(known, task, self.folder, None, self._queue)
        if self._queue:
            self._executor.update_parameters(slurm_job_name=Path(task.directory).name)
        job = self._submit(CellJob(task, environment))
        if self._queue:
            atomic_files.write_text(note, f"{job.job_id}\n")
        return SubmittedCell(job.job_id, task, self.folder, job, self._queue)

    def _submit(self, job: CellJob):
        from submitit.core.utils import FailedJobError

        try:
            return self._executor.submit(job)
        except FailedJobError as error:
            raise Refused(f"--launcher {self.cluster}: the job was refused: {error}") from None

    def stop(self, running: list["SubmittedCell"]) -> str:
        """Interrupt processes of this machine; jobs in a cluster go on, and are found again."""
        if self.cluster == "local":
            return _interrupt_all(running)
        numbers = " ".join(cell.job_id for cell in running)
        return f"the jobs in SLURM go on (to end them: scancel {numbers})" if numbers else ""


class SubmittedCell:
    """A cell as a job of submitit; `queue` is SLURM's, or None on this machine."""

    def __init__(self, job_id: str, task: CellTask, folder: Path, job, queue: "SlurmQueue | None"):
        self.job_id, self._task, self._job, self._queue = job_id, task, job, queue
        self.log, self.ending = folder / f"{job_id}_0_log.err", ""
        self.said = f"submitted as job {job_id}" if job else f"found again as job {job_id}"
        self._returned = folder / f"{job_id}_0_result.pkl"  # never opened
        self._answer, self._missed, self._gone = -math.inf, 0, None

    def done(self) -> bool:
        """Whether the job has ended. Its result is the run directory; submitit's own pickle is not read."""
        if self._queue is None:
            return self._job.done()
        if self._task.finished or self._returned.exists():
            return True
        answered, jobs = self._queue.look()
        if answered > self._answer:
            # A job may be missing for a moment after it was submitted; one that stays away has ended.
            self._answer, self._missed = answered, 0 if self.job_id in jobs else self._missed + 1
        if self._missed < 2:
            self._gone, self.ending = None, ""
            return False
        self._gone = self._gone or time.monotonic()
        self.ending = f"SLURM has ended job {self.job_id} (sacct -j {self.job_id} may say why)"
        os.listdir(Path(self._task.directory).parent)  # a shared file system may show new files late
        return time.monotonic() - self._gone > _LATE_FILES_SECONDS

    def interrupt(self) -> None:
        """Send SIGINT to the job, which passes it on."""
        self._job.cancel(check=False)


class SlurmQueue:
    """Which jobs of this user SLURM still has; needs no accounting database."""

    def __init__(self):
        self._jobs: frozenset[str] = frozenset()
        self._tried = self._answered = -math.inf
        self._first: frozenset[str] | None = None

    def look(self) -> tuple[float, frozenset[str]]:
        """The jobs, and when SLURM said so (-inf: not yet). It is asked every few seconds."""
        if time.monotonic() - self._tried >= _SLURM_SECONDS:
            self._ask()
        return self._answered, self._jobs

    def at_first(self) -> frozenset[str]:
        """The jobs when this was first called.

        Raises:
            UserError: SLURM does not answer, so that nobody knows which cells are at work.
        """
        if self._first is None:
            end = time.monotonic() + _LATE_FILES_SECONDS
            while self.look()[0] == -math.inf:
                if time.monotonic() > end:
                    raise UserError("--launcher slurm: squeue does not answer; jobs of an earlier command may be there")
                time.sleep(_SLURM_SECONDS)
            self._first = self._jobs
        return self._first

    def _ask(self) -> None:
        self._tried = time.monotonic()
        words = ["squeue", "--user", getpass.getuser(), "--noheader", "--format", "%A"]
        try:
            found = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UserError(f"--launcher slurm: squeue cannot be run ({error.strerror})") from None
        if found.returncode == 0:
            self._jobs, self._answered = frozenset(found.stdout.split()), self._tried
        else:
            tqdm.write(f"warning: squeue: {found.stderr.strip()}", file=sys.stderr)


def _interrupt_all(running: list) -> str:
    for cell in running:
        cell.interrupt()
    end = time.monotonic() + _STOPPING_SECONDS
    while any(not cell.done() for cell in running) and time.monotonic() < end:
        time.sleep(0.1)
    return ""


def _typed(parameters: Mapping[str, str]) -> dict[str, str | int]:
    return {name: int(value) if value.isdecimal() else value for name, value in parameters.items()}
