"""The processes that torchrun started for one run; without torchrun there is one, and nothing here does anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

from nfn_transformer.errors import UserError

_TIMEOUT = timedelta(days=7)

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
    is_main: bool = field(init=False)
    """whether this process writes and prints"""

    def __post_init__(self):
        object.__setattr__(self, "is_main", self.rank == 0)

    @classmethod
    def from_environment(cls) -> "Distributed":
        """Return this process by torchrun's variables RANK, WORLD_SIZE and LOCAL_RANK."""
        defaults = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        rank, count, local_rank = (int(os.environ.get(name, default)) for name, default in defaults)
        return cls(rank, count, local_rank)

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
        torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl", timeout=_TIMEOUT)
        try:
            yield device
        finally:
            torch.distributed.destroy_process_group()

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
