"""Distributed that train a zoo together, started by a launcher of `launch.launchers`: here, or in a cluster."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nfn_transformer.atomic_files import write_text
from nfn_transformer.errors import UserError
from nfn_transformer.generation.parts import WorkFolder
from nfn_transformer.grids.execution import last_line
from nfn_transformer.launch.job_runner import CellTask
from nfn_transformer.launch.launchers import Launcher, Refused

_POLL_SECONDS = 0.5


def worker_is_done(folder: Path) -> None:
    """Say, in its own folder, that a worker has found nothing left to train."""
    write_text(folder / "results.json", "{}\n")


def run_workers(command: Sequence[str], count: int, launcher: Launcher, work: WorkFolder, total: int) -> None:
    """Start workers and wait until all have ended.

    Args:
        command: a worker's words after Python's, without `--worker FOLDER`.
        count: how many workers; their folders and logs are in the work folder.
        total: how many populations the zoo has.

    Raises:
        UserError: the launcher takes none, or a worker has failed and populations are left; its log is named.
    """
    tasks = [_task(command, work.path / f"worker_{number:03d}") for number in range(count)]
    running: list = []
    with tqdm(total=total, initial=total - len(work.unfinished(total)), unit=" populations", leave=False) as bar:
        try:
            running += [launcher.start(task, slot) for slot, task in enumerate(tasks)]
            while not all(one.done() for one in running):
                time.sleep(_POLL_SECONDS)
                bar.update(total - len(work.unfinished(total)) - bar.n)
        except BaseException as error:
            if message := launcher.stop(running):
                tqdm.write(message, file=sys.stderr)
            if isinstance(error, Refused) and running:
                raise UserError(f"{error}; --jobs N sends fewer at once") from None
            raise
    for task in tasks:
        if not task.finished and work.unfinished(total):
            raise UserError(f"a worker has failed, see {task.log}: {last_line(Path(task.log))}")


def _task(command: Sequence[str], folder: Path) -> CellTask:
    """A worker in a folder of its own, without anything of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    words = (*command, "--worker", str(folder.resolve()))
    # The lock outlives the folder: a worker whose owner was killed may still hold it, and the next one waits for it.
    return CellTask(str(folder), str(folder / "log"), f"{folder}.lock", words, words)


def wait_for_others(work: WorkFolder, total: int) -> None:
    """Wait for processes that an earlier, killed command has left at work on populations."""
    while any(work.is_claimed(number) for number in work.unfinished(total)):
        time.sleep(_POLL_SECONDS)
