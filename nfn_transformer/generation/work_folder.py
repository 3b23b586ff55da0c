"""Work folder of an unfinished zoo: finished populations, kept so that a killed command can go on.

Every file is whole or absent. The folder knows the configuration of its parts.
"""

import fcntl
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.atomic_files import replacing, write_text
from nfn_transformer.bounded_text import parse_json
from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.generation.population import TrainedPopulation
from nfn_transformer.generation.snapshots import Snapshot
from nfn_transformer.zoo.torch_file import load_torch_file

_LONGEST_VALUE = 60
_REMOVALS, _REMOVAL_SECONDS = 5, 0.5
_POPULATION_PART = re.compile(r"\.population_(\d+)\.pt\.")


class WorkFolder:
    """Finished populations of one zoo, a file for each, beside the zoo's path.

    Several processes may train populations of one folder. One process, the owner, begins it and writes the zoo.
    """

    def __init__(self, out: Path):
        """Name the work folder of the zoo at `out`; it need not exist yet."""
        self.path = out.resolve().with_name(f"{out.resolve().name}.parts")
        self.scratch = self.path / "scratch"  # an empty folder for drafts, on the file system of `out`
        self._description = self.path / "configuration.json"
        self._written = self.path / "written"

    @contextmanager
    def owned(self, configuration: Mapping[str, object]) -> Iterator[None]:
        """Own the folder in this context; begin it if it does not exist.

        Args:
            configuration: all that the networks depend on, as JSON values.

        Raises:
            UserError: the folder holds parts of another configuration, or another process owns it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / "owner.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(lock):
                raise UserError(f"{self.path}: another process is making this zoo")
            if self._description.exists():
                self.check(configuration)
            else:
                write_text(self._description, json.dumps(configuration, indent=2) + "\n")
            self._clear()
            yield
        finally:
            os.close(lock)

    def check(self, configuration: Mapping[str, object]) -> None:
        """Raise UserError unless the folder is of this configuration."""
        expected = json.loads(json.dumps(configuration))
        try:
            values = parse_json(self._description.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ZooError(f"{self._description}: not JSON ({error}); delete {self.path} to begin anew") from None
        different = [key for key in {**values, **expected} if values.get(key) != expected.get(key)]
        if different:
            changes = ", ".join(_change(key, values.get(key), expected.get(key)) for key in sorted(different))
            raise UserError(
                f"{self.path} holds an unfinished zoo of another configuration ({changes}); "
                "run its command again to finish it, or delete the folder to begin anew"
            )

    def population_size(self) -> int | None:
        """Return the largest number of networks that train together here; None if nothing is begun."""
        try:
            return parse_json(self._description.read_text(encoding="utf-8"))["population"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save_tensor(self, name: str, tensor: Tensor) -> None:
        """Save a tensor for all processes, unless one of this name exists."""
        if self.load_tensor(name) is None:
            with replacing(self.path / f"{name}.pt") as temporary:
                torch.save(tensor.cpu(), temporary)

    def load_tensor(self, name: str) -> Tensor | None:
        """Return a saved tensor; None if it does not exist.

        Raises:
            ZooError: its file is damaged.
        """
        path = self.path / f"{name}.pt"
        return _load(path) if path.exists() else None

    def _clear(self) -> None:
        # A kill in the middle of a write leaves temporary files that no other process removes.
        for leftover in self.path.glob(".*.part"):
            if (match := _POPULATION_PART.match(leftover.name)) is None:
                leftover.unlink(missing_ok=True)
                continue
            with self.claim(int(match[1])) as is_claimed:  # it may belong to a worker that outlived its owner
                if is_claimed:
                    leftover.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def is_claimed(self, number: int) -> bool:
        """Return whether a process trains a population."""
        with self._try_lock(number) as is_free:
            return not is_free

    @contextmanager
    def claim(self, number: int) -> Iterator[bool]:
        """Claim a population in this context; False if it is finished or another process trains it."""
        with self._try_lock(number) as is_free:
            yield is_free and not self.is_finished(number)

    @contextmanager
    def _try_lock(self, number: int) -> Iterator[bool]:
        lock = os.open(self.path / f"population_{number:05d}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield _try_lock(lock)
        finally:
            os.close(lock)

    def _file(self, number: int) -> Path:
        return self.path / f"population_{number:05d}.pt"

    def is_finished(self, number: int) -> bool:
        """Return whether a population is finished."""
        return self._file(number).exists()

    def unfinished(self, total: int) -> list[int]:
        """Return the numbers, below `total`, of the populations that are not finished."""
        return [number for number in range(total) if not self.is_finished(number)]

    def save(self, number: int, trained: TrainedPopulation) -> None:
        """Save a finished population."""
        snapshots = {label: {"state": one.state, "correct": one.correct} for label, one in trained.snapshots.items()}
        self.save_part(number, {"snapshots": snapshots, "diverged": trained.diverged})

    def save_part(self, number: int, content: Mapping[str, object]) -> None:
        """Save the tensors of a finished population."""
        with replacing(self._file(number)) as temporary:
            torch.save(dict(content), temporary)

    def load(self, number: int) -> TrainedPopulation:
        """Return a finished population.

        Raises:
            ZooError: its file is damaged.
        """
        content = self.load_part(number)
        try:
            snapshots = {label: Snapshot(one["state"], one["correct"]) for label, one in content["snapshots"].items()}
            return TrainedPopulation(snapshots, content["diverged"])
        except (TypeError, KeyError) as error:
            raise _damaged(self._file(number), error) from None

    def load_part(self, number: int) -> dict:
        """Return the tensors of a finished population.

        Raises:
            ZooError: the file is damaged.
        """
        return _load(self._file(number))

    def mark_written(self) -> None:
        """Note that the zoo is about to appear at its path, and that the folder is of no use from then on."""
        write_text(self._written, "")

    def is_written(self, configuration: Mapping[str, object]) -> bool:
        """Return whether a zoo of this configuration is written, and a kill came before the folder was deleted."""
        with suppress(UserError, OSError):
            self.check(configuration)
            return self._written.exists()
        return False

    def remove(self) -> None:
        """Delete the folder, once the zoo is written; warn on stderr if a part of it stays."""
        last = (self._description, self._written)  # they tell a later command that the rest may be deleted
        for _ in range(_REMOVALS):  # a job that has just ended may still write its log
            for entry in [entry for entry in self.path.glob("*") if entry not in last]:
                with suppress(OSError):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(_REMOVAL_SECONDS)
        print(f"warning: {self.path}: cannot be deleted whole, and is no longer needed", file=sys.stderr)


def _load(path: Path):
    try:
        return load_torch_file(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ZooError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ZooError(f"{path}: damaged ({reason}); delete it and run the command again")


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        _warn_of_missing_locks()
    return True


@lru_cache(maxsize=1)
def _warn_of_missing_locks() -> None:
    print("warning: this file system has no locks; do not make one zoo twice at once", file=sys.stderr)


def _change(key: str, before: object, now: object) -> str:
    if max(len(str(before)), len(str(now))) > _LONGEST_VALUE:
        return f"{key} have changed"
    return f"{key} was {before}, is now {now}"
