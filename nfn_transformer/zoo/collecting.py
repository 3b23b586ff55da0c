"""Checkpoints of a zoo, read in order by one process or by several, those of one shape as one matrix."""

import os
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nfn_transformer.errors import ZooError
from nfn_transformer.printable import quoted
from nfn_transformer.resources import free_bytes
from nfn_transformer.weights.state_dicts import flatten_state_dict, row_length
from nfn_transformer.zoo import sources
from nfn_transformer.zoo.any_checkpoint import LARGE_READERS
from nfn_transformer.zoo.checkpoint import Outcome, read_checkpoint
from nfn_transformer.zoo.containers import INDEX_SUFFIXES, parse_index
from nfn_transformer.zoo.faults import Fault, Reason, Signature
from nfn_transformer.zoo.recognition import FEED_FORWARD_KINDS, STANDARD_KINDS
from nfn_transformer.zoo.sources import FolderSource, Source, TooLargeFile, UnreadableFile

# Large enough to hide the cost of a message, small enough that waiting chunks need little memory.
CHUNK = 64

# Of a zoo whose first files are damaged.
_MOST_TRIED = 10

# So many rows of one length are no longer a rare exception.
_COMMON = 64

Files = Sequence[tuple[str, str]]
Scratch = Callable[[], Path | None]
Reader = Callable[[str, bytes, str | None, Callable[[str], bytes] | None], Outcome]


def read_outcomes(
    source: Source, files: Files, n_workers: int, weights_key: str | None = None, read: Reader = read_checkpoint
) -> Iterator[Outcome]:
    """Yield the outcomes of reading checkpoints, in the order of `files`, whatever the number of workers.

    Args:
        source: place of the files.
        files: file name and path within the source, of each checkpoint.
        n_workers: processes that read, at most as many as there are cores; 0 reads in this one.
        weights_key: see `containers.find_network`.
        read: reads a file, as `checkpoint.read_checkpoint` does; worker processes import it by its name.

    Raises:
        ZooError: a worker process died.
    """
    if n_workers == 0 or len(files) <= CHUNK:
        yield from (_read(source, name, path, weights_key, read) for name, path in files)
        return
    n_workers = min(n_workers, os.cpu_count() or 1)
    chunks = deque(files[start : start + CHUNK] for start in range(0, len(files), CHUNK))
    waiting: deque[Future[list[Outcome]]] = deque()
    # A forked child can hang in a lock that another thread of torch held; a spawned one starts clean.
    context, shared = get_context("spawn"), (source, weights_key, read)
    pool = ProcessPoolExecutor(min(n_workers, len(chunks)), context, _start_worker, shared)
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


def begins_with_transformer(source: Source, files: Files, weights_key: str | None) -> bool:
    """Return whether the first of files that can be read is a transformer, or looks like one; True where none can."""
    for name, path in files[:_MOST_TRIED]:
        outcome = _read(source, name, path, weights_key, read_checkpoint)
        if outcome.fault is None or outcome.fault.reason != Reason.UNREADABLE:
            return outcome.fault is None or outcome.fault.kind not in (*FEED_FORWARD_KINDS, *STANDARD_KINDS)
    return True


def _read(source: Source, name: str, path: str, weights_key: str | None, read: Reader) -> Outcome:
    def read_beside(file: str) -> bytes:
        try:
            return source.read(path.removesuffix(path.rsplit("/", 1)[-1]) + file)
        except (UnreadableFile, KeyError) as error:
            raise ValueError(f"{quoted(file)}, which its index names: {error}") from None

    large = LARGE_READERS.get(read) if isinstance(source, FolderSource) else None
    try:
        content = source.read(path)
        if large is not None and name.endswith(INDEX_SUFFIXES) and _have_large_shares(source.path / path, content):
            return large(name, source.path / path, weights_key)
    except TooLargeFile as error:
        if large is not None:
            return large(name, source.path / path, weights_key)
        unpacked = "" if isinstance(source, FolderSource) else "; the files of a folder may be larger"
        return Outcome(Fault(name, Reason.UNREADABLE, f"{error}{unpacked}"))
    except UnreadableFile as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    return read(name, content, weights_key, read_beside)


def _have_large_shares(path: Path, index: bytes) -> bool:
    """Return whether the files that an index names are together larger than a file that is read as a whole."""
    try:
        files = [path.parent / name for name in set(parse_index(index).values())]
        return sum(file.stat().st_size for file in files) > sources.MAX_FILE_BYTES
    except (ValueError, OSError):  # which the index's reader names
        return False


_worker_source: Source
_worker_weights_key: str | None
_worker_read: Reader


def _start_worker(source: Source, weights_key: str | None, read: Reader) -> None:
    global _worker_source, _worker_weights_key, _worker_read
    _worker_source, _worker_weights_key, _worker_read = source, weights_key, read
    # Ctrl-C reaches all processes; the one that the user started says so, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _read_chunk(files: Files) -> list[Outcome]:
    outcomes = (_read(_worker_source, name, path, _worker_weights_key, _worker_read) for name, path in files)
    return [outcome if outcome.state is None else _with_row(outcome) for outcome in outcomes]


def _with_row(outcome: Outcome) -> Outcome:
    """Return the outcome with its numbers in memory, as another process cannot use a mapping of this one."""
    matrix = RowMatrix(row_length(dict(outcome.shapes)), 1)
    matrix.append(outcome)
    return replace(outcome, state=None, row=matrix.rows()[0].numpy())


class RowMatrix:
    """Rows of one length, float32: a matrix that grows row by row and is in memory once.

    Args:
        length: numbers in a row.
        capacity: the most rows that can come.
        scratch: gives the folder for a nameless file of rows that may take more than half of the free memory. Without
            a folder the rows stay in memory.
    """

    def __init__(self, length: int, capacity: int, scratch: Scratch = lambda: None):
        self._capacity, self._scratch = capacity, scratch
        self._rows = torch.empty(1, length)
        self.count = 0

    def append(self, outcome: Outcome) -> None:
        """Add the numbers of a checkpoint, of which there are as many as in a row."""
        if self.count == len(self._rows):
            # Memory that is asked for but not touched costs nothing, so a matrix that turns out to be a large one
            # gets all it can ever need at once, and never has to be copied.
            rows = self._capacity if self.count >= _COMMON else min(4 * self.count, self._capacity)
            grown = self._allocate(rows)
            grown[: self.count] = self._rows
            self._rows = grown
        if outcome.state is not None:
            flatten_state_dict(outcome.state, dict(outcome.shapes), self._rows[self.count])
        else:
            assert outcome.row is not None  # a checkpoint without a fault
            self._rows[self.count].copy_(torch.from_numpy(outcome.row))
        self.count += 1

    def _allocate(self, rows: int) -> Tensor:
        shape = (rows, self._rows.shape[1])
        size = 4 * rows * shape[1]
        too_large = size > free_bytes(torch.device("cpu")) / 2
        folder = self._scratch() if too_large else None
        if folder is None:
            return torch.empty(shape)
        with tempfile.TemporaryFile(dir=folder) as file:  # the mapping outlives its name and its handle
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, later it would be a crash
            return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))

    def rows(self) -> Tensor:
        """Return all rows [count, length] in the order they came."""
        return self._rows[: self.count]


@dataclass(frozen=True)
class Collection:
    """Checkpoints of one epoch."""

    names: list[str]
    """file names of the sound checkpoints of the most common signature, sorted"""
    rows: Tensor
    """[n, row length] float32, their numbers"""
    signatures: list[tuple[Signature, int]]
    """signatures and their counts, the most common first"""
    faults: list[Fault] = field(default_factory=list)
    """faults of all other checkpoints"""
    stray_keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """file name -> unknown keys of tensors, of all checkpoints that carry any"""
    entries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """file name -> keys of entries that are no tensors, of all checkpoints that carry any"""
    forms: dict[str, str] = field(default_factory=dict)
    """file name -> how its keys are written, where not plainly"""


def collect(
    names: Sequence[str], heads: Iterable[int], outcomes: Iterable[Outcome], scratch: Scratch = lambda: None
) -> Collection:
    """Return the checkpoints of one epoch, gathered as they come.

    Args:
        names: their file names, sorted.
        heads: their numbers of heads.
        outcomes: the outcomes of reading them, in the same order.
        scratch: see `RowMatrix`.
    """
    groups: dict[Signature, tuple[list[str], RowMatrix]] = {}
    faults: list[Fault] = []
    stray: dict[str, tuple[str, ...]] = {}
    entries: dict[str, tuple[str, ...]] = {}
    forms: dict[str, str] = {}
    for name, head_count, outcome in zip(names, heads, outcomes, strict=True):
        if outcome.unknown:
            stray[name] = outcome.unknown
        if outcome.entries:
            entries[name] = outcome.entries
        if outcome.form:
            forms[name] = outcome.form
        if outcome.fault is not None:
            faults.append(outcome.fault)
        elif outcome.row is not None:
            signature = Signature(outcome.shapes, head_count)
            if signature not in groups:
                groups[signature] = [], RowMatrix(len(outcome.row), len(names), scratch)
            members, matrix = groups[signature]
            members.append(name)
            matrix.append(outcome)
    # Sorting is stable: of two signatures as common as each other, the first in file order wins.
    ranked = sorted(groups.items(), key=lambda item: -item[1][1].count)
    if not ranked:
        return Collection([], torch.empty(0, 0), [], faults, stray, entries, forms)
    majority, (chosen, rows) = ranked[0]
    for signature, (members, _) in ranked[1:]:
        detail = signature.difference(majority)
        faults += [Fault(name, Reason.SHAPE, detail) for name in members]
    counts = [(signature, matrix.count) for signature, (_, matrix) in ranked]
    return Collection(chosen, rows.rows(), counts, faults, stray, entries, forms)
