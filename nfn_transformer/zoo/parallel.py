"""Reading many checkpoints in order, in this process or by several at once."""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.checkpoint import Outcome, read_checkpoint
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.sources import Source, UnreadableFile

# Large enough to hide the cost of a message, small enough that waiting chunks need little memory.
CHUNK = 64

Files = Sequence[tuple[str, str]]


def read_outcomes(source: Source, files: Files, n_workers: int) -> Iterator[Outcome]:
    """Read checkpoints, in the order of `files`, whatever the number of workers.

    Args:
        source: where the files lie.
        files: file name and path within the source, of each checkpoint.
        n_workers: processes that read, at most as many as there are cores; 0 reads in this one.

    Raises:
        ZooError: a worker process died.
    """
    if n_workers == 0 or len(files) <= CHUNK:
        return (_read(source, name, path) for name, path in files)
    return _parallel(source, files, min(n_workers, os.cpu_count() or 1))


def _read(source: Source, name: str, path: str) -> Outcome:
    try:
        content = source.read(path)
    except UnreadableFile as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    return read_checkpoint(name, content)


def _parallel(source: Source, files: Files, n_workers: int) -> Iterator[Outcome]:
    chunks = deque(files[start : start + CHUNK] for start in range(0, len(files), CHUNK))
    waiting: deque[Future[list[Outcome]]] = deque()
    # A forked child can hang in a lock that another thread of torch held; a spawned one starts clean.
    pool = ProcessPoolExecutor(min(n_workers, len(chunks)), get_context("spawn"), _start_worker, (source,))
    try:
        while chunks or waiting:
            # Only so many chunks are under way that finished ones do not pile up in memory.
            while chunks and len(waiting) < 2 * n_workers:
                waiting.append(pool.submit(_read_chunk, chunks.popleft()))
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise ZooError(f"{source.path}: a process that read checkpoints died; read them with no workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


_worker_source: Source | None = None


def _start_worker(source: Source) -> None:
    global _worker_source
    _worker_source = source
    # Ctrl-C reaches all processes; the one that the user started says so, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _read_chunk(files: Files) -> list[Outcome]:
    return [_read(_worker_source, name, path) for name, path in files]
