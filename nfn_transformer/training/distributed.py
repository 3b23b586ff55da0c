"""The processes that torchrun started for one run; without it there is one, and nothing here does anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor

from nfn_transformer.errors import UserError

_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Distributed:
    """rank, of this process; count, of all; local_rank, among those on this machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Distributed":
        """What torchrun tells by RANK, WORLD_SIZE and LOCAL_RANK."""
        rank, count, local_rank = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        )
        return cls(rank, count, local_rank)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """The device of this process where `device` is wanted: of several on one machine each has a GPU of its own.

        Raises:
            UserError: there are fewer GPUs than processes on this machine.
        """
        if device == "cpu" or self.count == 1:
            return device
        if self.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"torchrun started a process {self.local_rank + 1} on this machine, which has "
                f"{torch.cuda.device_count()} CUDA devices; --nproc_per_node must not be larger"
            )
        return f"cuda:{self.local_rank}"

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """While this holds the processes, each with a device like `device`, can talk to each other."""
        if self.count == 1:
            yield
            return
        if device != "cpu":
            torch.cuda.set_device(self.device(device))
        # The others wait while the first process reads the zoo, which may take hours.
        distributed.init_process_group("gloo" if device == "cpu" else "nccl", timeout=_PATIENCE)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Lets the first process through, and the others once it is done."""
        if self.count > 1 and not self.is_main:
            distributed.barrier()
        yield
        if self.count > 1 and self.is_main:
            distributed.barrier()

    def share(self, batch: Tensor) -> Tensor:
        """This process' part of a batch's indices, along the last dimension; sizes differ by one, and may be 0."""
        return batch[..., self.rank :: self.count]

    def sum(self, number: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(number)
        return number

    def broadcast(self, value):
        """What the first process gives; the others give anything."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]


SINGLE_PROCESS = Distributed()
