"""Launchers start jobs; this one as processes of this machine."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from nfn_transformer.errors import UserError
from nfn_transformer.launch.job import Job

_STOPPING_SECONDS = 60.0


class Refused(UserError):
    """A launcher cannot start another job now."""


class RunningJob(Protocol):
    """A job that was started."""

    job: Job
    """The job."""
    launcher_log: Path | None
    """The launcher's own log of the job, if it keeps one."""
    start_message: str
    """Text for the screen: started, submitted or found again."""
    end_message: str
    """The job's end as the launcher knows it; empty if unknown."""

    def done(self) -> bool:
        """Return whether the job has ended, finished or not."""

    def interrupt(self) -> None:
        """Ask the job to stop, as Ctrl-C does."""


_Running = TypeVar("_Running", bound=RunningJob)


class Launcher(Protocol[_Running]):
    """Starter of jobs."""

    slots: int
    """Number of jobs that may run at once."""

    def start(self, job: Job, slot: int) -> _Running:
        """Start a job in a free slot, 0 <= slot < slots.

        Raises:
            Refused: the job cannot be started now.
        """

    def stop(self, running: Sequence[_Running]) -> str:
        """Stop the jobs that should stop with their driver; return a message for the user, or an empty text."""


class ProcessLauncher:
    """Launcher of processes of this machine, each with the environment of its slot."""

    def __init__(self, environments: Sequence[Mapping[str, str]]):
        self.environments, self.slots = environments, len(environments)

    def start(self, job: Job, slot: int) -> "JobProcess":
        """Start a process."""
        return JobProcess(job, self.environments[slot])

    def stop(self, running: Sequence["JobProcess"]) -> str:
        """Interrupt all jobs and wait until they have saved their state."""
        return interrupt_all(running)


class JobProcess:
    """A job that runs in a process of this machine."""

    def __init__(self, job: Job, environment: Mapping[str, str]):
        self.job = job
        self.launcher_log: Path | None = None
        self.start_message, self.end_message = "started", ""
        with open(job.log, "ab") as log:
            self._process = subprocess.Popen(
                job.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # In a session of its own, Ctrl-C on a terminal reaches the driver alone, which interrupts the job once.
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def done(self) -> bool:
        """Return whether the process has ended."""
        return self._process.poll() is not None

    def wait(self) -> int:
        """Wait for the end of the process; return its exit status."""
        return self._process.wait()

    def interrupt(self) -> None:
        """Send SIGINT to the process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)


def interrupt_all(running: Sequence[RunningJob]) -> str:
    """Interrupt jobs and wait up to a minute for their end; return an empty text."""
    for job in running:
        job.interrupt()
    end = time.monotonic() + _STOPPING_SECONDS
    while any(not job.done() for job in running) and time.monotonic() < end:
        time.sleep(0.1)
    return ""


def why_unfinished(running: RunningJob) -> tuple[Path, str]:
    """Return the log of an unfinished job that has ended, and the reason in one line."""
    log = running.job.log
    if not log.is_file() and running.launcher_log is not None:
        log = running.launcher_log  # the job ended before it had a log
    return log, "; ".join(filter(None, [running.end_message, last_line(log)]))


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty: the message of an error."""
    try:
        text = log.read_text(errors="replace").replace("\r", "\n")
    except OSError:
        return "(there is no log)"
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "(the log is empty)")
