"""The processes that torchrun started for one run; without torchrun there is one, and nothing here does anything."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Timer
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

from nfn_transformer.errors import UserError

_TIMEOUT = timedelta(days=7)
_SECONDS_BEFORE_NOTICE = 5.0
_ADVICE = "start several processes by torchrun, or one alone after: unset RANK WORLD_SIZE LOCAL_RANK"

T = TypeVar("T")


@dataclass(frozen=True)
class Distributed:
    """One of the processes that share a run."""

    rank: int = 0
    """of this process; the main process has 0"""
    count: int = 1
    """of all processes"""
    local_rank: int = 0
    """of this process among those on its machine"""
    is_main: bool = True
    """true for the process that writes and prints, of rank 0"""

    @classmethod
    def from_environment(cls) -> "Distributed":
        """Return this process by torchrun's variables RANK, WORLD_SIZE and LOCAL_RANK; one alone without WORLD_SIZE.

        Raises:
            UserError: another launcher or a container has set some of them, or to other values than torchrun does.
        """
        numbers: dict[str, int] = {}
        for name, default in (("WORLD_SIZE", "1"), ("RANK", ""), ("LOCAL_RANK", "0")):
            value = os.environ.get(name) or default
            if not (value.isascii() and value.isdecimal()):
                got = f"{name}={value}" if value else f"WORLD_SIZE={numbers['WORLD_SIZE']}, but no {name}"
                raise UserError(f"{got}: expected {name} as torchrun sets it; {_ADVICE}")
            numbers[name] = int(value)
            if numbers["WORLD_SIZE"] <= 1:
                return cls()
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing or numbers["RANK"] >= numbers["WORLD_SIZE"]:
            got = ", ".join(f"{name}={number}" for name, number in numbers.items())
            expected = f"{' and '.join(missing)} besides" if missing else "RANK below WORLD_SIZE"
            raise UserError(f"{got}: expected {expected}, as torchrun sets it; {_ADVICE}")
        rank = numbers["RANK"]
        return cls(rank, numbers["WORLD_SIZE"], numbers["LOCAL_RANK"], is_main=rank == 0)

    @contextmanager
    def joined(self, device: str) -> Iterator[str]:
        """Connect the processes for as long as the context lasts, and give this one its device.

        Each process has a device like `device`; of several on one machine each has its own GPU.

        Raises:
            UserError: there are fewer GPUs than processes on this machine.
        """
        if self.count == 1:
            yield device
            return
        if device != "cpu":
            gpus = torch.cuda.device_count()
            if self.local_rank >= gpus:
                raise UserError(
                    f"torchrun started a process {self.local_rank + 1} on this machine, which has {gpus} CUDA devices; "
                    "--nproc_per_node must not be larger"
                )
            device = f"cuda:{self.local_rank}"
            torch.cuda.set_device(device)
        # The others wait while the main process reads the zoo, which may take hours.
        notice = Timer(_SECONDS_BEFORE_NOTICE, self._tell_of_waiting)
        notice.start()
        try:
            torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl", timeout=_TIMEOUT)
        finally:
            notice.cancel()
        try:
            yield device
        finally:
            torch.distributed.destroy_process_group()

    def _tell_of_waiting(self) -> None:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        print(
            f"process {self.rank} is waiting at {address} for {self.count} processes (RANK, WORLD_SIZE are set); "
            f"{_ADVICE}",
            file=sys.stderr,
        )

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the main process through, and the others once it is done."""
        if self.count > 1 and not self.is_main:
            torch.distributed.barrier()
        yield
        if self.count > 1 and self.is_main:
            torch.distributed.barrier()

    def share(self, batch: Tensor) -> Tensor:
        """Return this process' part of a batch's indices along the last dimension; sizes differ by one and may be 0."""
        return batch[..., self.rank :: self.count]

    def sum(self, number: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(number)
        return number

    def broadcast(self, value: T) -> T:
        """Return the main process' value in every process."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]


SINGLE_PROCESS = Distributed()
