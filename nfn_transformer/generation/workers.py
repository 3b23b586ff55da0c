"""Processes that train a zoo together, started by a launcher on this machine or in a cluster."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nfn_transformer.errors import UserError
from nfn_transformer.generation.progress_bar import LineNowAndThen
from nfn_transformer.generation.work_folder import WorkFolder
from nfn_transformer.launch.job import Job
from nfn_transformer.launch.launchers import Launcher, Refused, RunningJob, why_unfinished

_POLL_SECONDS = 0.5


def run_workers(argv: Sequence[str], count: int, launcher: Launcher, work: WorkFolder, total: int) -> None:
    """Start workers and wait until all have ended.

    Args:
        argv: Python's arguments for a worker, without `--worker FILE`.
        count: number of workers; their logs are in the work folder.
        launcher: starts them.
        work: the zoo's work folder.
        total: number of the zoo's populations.

    Raises:
        UserError: the launcher takes none, or a worker has failed and populations are left; its log is named.
    """
    jobs = [_job(argv, work.path / f"worker_{number:03d}") for number in range(count)]
    running: list[RunningJob] = []
    done, lines = total - len(work.unfinished(total)), LineNowAndThen()
    with tqdm(total=total, initial=done, unit=" populations", leave=False, disable=None) as bar:
        try:
            for slot, job in enumerate(jobs):
                running.append(launcher.start(job, slot))
            while not all(worker.done() for worker in running):
                time.sleep(_POLL_SECONDS)
                done = total - len(work.unfinished(total))
                bar.update(done - bar.n)
                lines.show(f"{done}/{total} populations")
        except BaseException as error:
            if message := launcher.stop(running):
                tqdm.write(message, file=sys.stderr)
            if isinstance(error, Refused) and running:
                raise UserError(f"{error}; --jobs N sends fewer at once") from None
            raise
    for worker in running:
        if not worker.job.is_finished() and work.unfinished(total):
            log, reason = why_unfinished(worker)
            raise UserError(f"a worker has failed, see {log}: {reason}")


def _job(argv: Sequence[str], path: Path) -> Job:
    """Return a worker's job, without the marker and the log of an earlier one.

    The lock stays: a worker whose owner was killed may still hold it, and the next worker waits for it.
    """
    marker = path.with_suffix(".done")
    job = Job(path=str(path), finished_file=str(marker), begin=(*argv, "--worker", str(marker)))
    marker.unlink(missing_ok=True)
    job.log.unlink(missing_ok=True)
    return job


def wait_for_others(work: WorkFolder, total: int) -> None:
    """Wait for processes that an earlier, killed command has left at work on populations."""
    while any(work.is_claimed(number) for number in work.unfinished(total)):
        time.sleep(_POLL_SECONDS)
