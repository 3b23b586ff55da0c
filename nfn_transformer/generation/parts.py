"""The work folder of a zoo in the making: finished populations, kept so that a killed command can go on.

Every file is whole or not there. The folder knows the configuration that its parts were made from.
"""

import fcntl
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.atomic_files import replacing, write_text
from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.generation.population import TrainedPopulation
from nfn_transformer.generation.snapshots import Snapshot

_LONGEST_VALUE = 60
_REMOVALS, _REMOVAL_SECONDS = 5, 0.5
_POPULATION_PART = re.compile(r"\.population_(\d+)\.pt\.")


class WorkFolder:
    """Finished populations of one zoo, each in a file, beside the zoo's place.

    Several processes may train populations of one folder; one, its owner, has made it and writes the zoo.
    """

    def __init__(self, out: Path):
        """The work folder for the zoo at `out`, which need not be there yet."""
        self.path = out.resolve().with_name(f"{out.resolve().name}.parts")
        self.scratch = self.path / "scratch"  # an empty folder for drafts, on the file system of `out`
        self._description = self.path / "configuration.json"

    @contextmanager
    def owned(self, configuration: Mapping[str, object]) -> Iterator[None]:
        """While this holds, this process owns the folder, which is begun where it is not there.

        Args:
            configuration: all that the networks depend on, as JSON values.

        Raises:
            UserError: the folder holds parts made from another configuration, or another process owns it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / "owner.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _locked(lock):
                raise UserError(f"{self.path}: another process is making this zoo")
            wanted = json.loads(json.dumps(configuration))
            if self._description.exists():
                self.check(wanted)
            else:
                write_text(self._description, json.dumps(wanted, indent=2) + "\n")
            self._clear()
            yield
        finally:
            os.close(lock)

    def check(self, configuration: Mapping[str, object]) -> None:
        """Raise UserError unless the folder is of this configuration."""
        _check_same(self._description, json.loads(json.dumps(configuration)))

    @property
    def population(self) -> int | None:
        """How many networks at most train together here; None where nothing is begun."""
        try:
            return json.loads(self._description.read_text(encoding="utf-8"))["population"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor that all processes are to use, unless one of this name is there."""
        if self.kept(name) is None:
            with replacing(self.path / f"{name}.pt") as temporary:
                torch.save(tensor.cpu(), temporary)

    def kept(self, name: str) -> Tensor | None:
        """The tensor that was kept under a name; None where there is none.

        Raises:
            ZooError: its file is damaged.
        """
        path = self.path / f"{name}.pt"
        return _loaded(path) if path.exists() else None

    def _clear(self) -> None:
        # A kill in the middle of a write leaves temporary files that nobody else will remove.
        for leftover in self.path.glob(".*.part"):
            if (found := _POPULATION_PART.match(leftover.name)) is None:
                leftover.unlink(missing_ok=True)
                continue
            with self.claim(int(found[1])) as is_mine:  # it may be of a process that outlived its owner
                if is_mine:
                    leftover.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def is_claimed(self, number: int) -> bool:
        """Whether some process is at a population."""
        with self._lock(number) as locked:
            return not locked

    @contextmanager
    def claim(self, number: int) -> Iterator[bool]:
        """Whether this process may train a population now: it is not finished, and nobody else is at it."""
        with self._lock(number) as locked:
            yield locked and not self.has(number)

    @contextmanager
    def _lock(self, number: int) -> Iterator[bool]:
        lock = os.open(self.path / f"population_{number:05d}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield _locked(lock)
        finally:
            os.close(lock)

    def _file(self, number: int) -> Path:
        return self.path / f"population_{number:05d}.pt"

    def has(self, number: int) -> bool:
        """Whether a population is finished."""
        return self._file(number).exists()

    def unfinished(self, total: int) -> list[int]:
        """The numbers of the populations, of so many, that are not finished."""
        return [number for number in range(total) if not self.has(number)]

    def save(self, number: int, trained: TrainedPopulation) -> None:
        """Keep a finished population."""
        snapshots = {label: {"state": one.state, "correct": one.correct} for label, one in trained.snapshots.items()}
        with replacing(self._file(number)) as temporary:
            torch.save({"snapshots": snapshots, "diverged": trained.diverged}, temporary)

    def load(self, number: int) -> TrainedPopulation:
        """A finished population.

        Raises:
            ZooError: its file is damaged.
        """
        content = _loaded(self._file(number))
        try:
            snapshots = {label: Snapshot(one["state"], one["correct"]) for label, one in content["snapshots"].items()}
            return TrainedPopulation(snapshots, content["diverged"])
        except (TypeError, KeyError) as error:
            raise _damaged(self._file(number), error) from None

    def remove(self) -> None:
        """Delete the folder, once the zoo is written; say so on stderr where a part of it stays."""
        for _ in range(_REMOVALS):  # a job that has just ended may still write its log
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(_REMOVAL_SECONDS)
        print(f"warning: {self.path}: cannot be deleted whole, and is no longer needed", file=sys.stderr)


def _loaded(path: Path):
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged file makes it stumble over
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ZooError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ZooError(f"{path}: damaged ({reason}); delete it and run the command again")


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        _say_that_there_are_no_locks()
    return True


@lru_cache(maxsize=1)
def _say_that_there_are_no_locks() -> None:
    print("warning: this file system has no locks; do not make one zoo twice at once", file=sys.stderr)


def _check_same(description: Path, wanted: Mapping[str, object]) -> None:
    try:
        found = json.loads(description.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ZooError(f"{description}: not JSON ({error}); delete {description.parent} to begin anew") from None
    different = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if different:
        changes = ", ".join(_change(key, found.get(key), wanted.get(key)) for key in sorted(different))
        raise UserError(
            f"{description.parent} holds an unfinished zoo of another configuration ({changes}); "
            "run its command again to finish it, or delete the folder to begin anew"
        )


def _change(key: str, before: object, now: object) -> str:
    if max(len(str(before)), len(str(now))) > _LONGEST_VALUE:
        return f"{key} have changed"
    return f"{key} was {before}, is now {now}"
