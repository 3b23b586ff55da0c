"""Jobs through submitit: processes of this machine (`local`), or of a SLURM cluster (`slurm`)."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nfn_transformer import atomic_files
from nfn_transformer.errors import UserError
from nfn_transformer.extras import extra
from nfn_transformer.launch.job import Job
from nfn_transformer.launch.launchers import JobProcess, Refused, interrupt_all
from nfn_transformer.launch.slurm_queue import SlurmQueue

_LATE_FILES_SECONDS = 60.0


class SubmititTask:
    """The callable that submitit runs for a job. SLURM queues it again at its time limit, and the job is resumed."""

    def __init__(self, job: Job, environment: Mapping[str, str]):
        self.job, self.environment = job, environment

    def __call__(self) -> int:
        """Run the job and return its exit status. An interrupt is passed on once."""
        environment = dict(self.environment)
        if "SLURM_CPUS_PER_TASK" in os.environ and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = os.environ["SLURM_CPUS_PER_TASK"]
        process = JobProcess(self.job, environment)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.interrupt()
            return process.wait()

    def checkpoint(self):
        """Return what submitit queues in place of a job that was stopped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SubmititLauncher:
    """Launcher of submitit's jobs."""

    def __init__(
        self,
        cluster: str,
        slots: int,
        environments: Sequence[Mapping[str, str]],
        folder: Path,
        parameters: Mapping[str, str],
    ):
        """Set up submitit's executor.

        Args:
            cluster: local or slurm.
            slots: jobs at once.
            environments: additions to the environment of each slot of this machine.
            folder: for submitit's files.
            parameters: for `AutoExecutor.update_parameters` of submitit.

        Raises:
            UserError: submitit or SLURM is missing, or refuses a parameter.
        """
        with extra("slurm", f"--launcher {cluster}"):
            import submitit
        self.cluster, self.slots, self.environments, self.folder = cluster, slots, environments, folder
        self._queue = SlurmQueue() if cluster == "slurm" else None
        # submitit logs what this program reports itself.
        submitit.core.core.logger.get_logger().setLevel("ERROR")
        # A job that reaches its time limit goes on in another one, as often as it takes.
        requeue = {"slurm_max_num_timeout": 1000} if cluster == "slurm" else {}
        typed = {name: int(value) if value.isdecimal() else value for name, value in parameters.items()}
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster, **requeue)
            self._executor.update_parameters(**{"timeout_min": 24 * 60, **typed})
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"--launcher {cluster}: {error}") from None

    def start(self, job: Job, slot: int) -> "SubmittedJob":
        """Submit a job, unless SLURM still has it from an earlier command."""
        if self._queue is None:
            submitted = self._submit(SubmititTask(job, self.environments[slot % len(self.environments)]))
            return SubmittedJob(submitted.job_id, job, self.folder, submitted, None)
        number = job.note.read_text().strip() if job.note.is_file() else ""
        if number and number in self._queue.jobs_at_first():
            return SubmittedJob(number, job, self.folder, None, self._queue)
        self._executor.update_parameters(slurm_job_name=job.name)
        submitted = self._submit(SubmititTask(job, {}))
        atomic_files.write_text(job.note, f"{submitted.job_id}\n")
        return SubmittedJob(submitted.job_id, job, self.folder, submitted, self._queue)

    def _submit(self, task: SubmititTask):
        from submitit.core.utils import FailedJobError

        try:
            return self._executor.submit(task)
        except FailedJobError as error:
            raise Refused(f"--launcher {self.cluster}: the job was refused: {error}") from None

    def stop(self, running: Sequence["SubmittedJob"]) -> str:
        """Interrupt processes of this machine; jobs in a cluster go on, and are found again by the next command."""
        if self.cluster == "local":
            return interrupt_all(running)
        numbers = " ".join(job.number for job in running)
        return f"the jobs in SLURM go on (to end them: scancel {numbers})" if numbers else ""


class SubmittedJob:
    """A job that submitit runs."""

    def __init__(self, number: str, job: Job, folder: Path, submitted, queue: SlurmQueue | None):
        """Follow a job.

        Args:
            number: submitit's name of the job, in a cluster SLURM's number.
            job: the job.
            folder: of submitit's files.
            submitted: submitit's own object; None for a job of an earlier command.
            queue: of SLURM; None on this machine.
        """
        self.number, self.job, self._submitted, self._queue = number, job, submitted, queue
        self.launcher_log: Path | None = folder / f"{number}_0_log.err"
        self.end_message = ""
        self.start_message = f"submitted as job {number}" if submitted else f"found again as job {number}"
        self._pickle = folder / f"{number}_0_result.pkl"  # submitit's own result, which is never opened
        self._answered, self._misses = -math.inf, 0
        self._missing_since: float | None = None

    def done(self) -> bool:
        """Return whether the job has ended."""
        if self._queue is None:
            return self._submitted.done()
        if self.job.is_finished() or self._pickle.exists():
            return True
        answered, jobs = self._queue.jobs()
        if answered > self._answered:
            # A new job may be missing from one answer of SLURM; one that is missing from two in a row has ended.
            self._answered, self._misses = answered, 0 if self.number in jobs else self._misses + 1
        if self._misses < 2:
            self._missing_since, self.end_message = None, ""
            return False
        self._missing_since = self._missing_since or time.monotonic()
        self.end_message = f"SLURM has ended job {self.number} (sacct -j {self.number} may say why)"
        os.listdir(Path(self.job.path).parent)  # a shared file system may show new files late
        return time.monotonic() - self._missing_since > _LATE_FILES_SECONDS

    def interrupt(self) -> None:
        """Send SIGINT to the job, which passes it on."""
        self._submitted.cancel(check=False)
