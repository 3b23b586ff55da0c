"""A matrix that grows row by row and stands in memory once, or in a file where memory is too small."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nfn_transformer.free_memory import free_bytes

# So many rows of one length are no longer a rare exception.
_COMMON = 64


Scratch = Callable[[], Path | None]


def no_scratch() -> None:
    """No folder for rows that memory is too small for."""


class RowMatrix:
    """Rows of one length, float32.

    Args:
        length: numbers in a row.
        capacity: the most rows that can come.
        scratch: gives the folder of a nameless file that holds the rows where they may take more than half of the free
            memory; where there is none they are kept in memory.
    """

    def __init__(self, length: int, capacity: int, scratch: Scratch = no_scratch):
        self._capacity, self._scratch = capacity, scratch
        self._rows = torch.empty(1, length)
        self.count = 0

    def append(self, row: np.ndarray) -> None:
        """Add a row [length]."""
        if self.count == len(self._rows):
            # Memory that is asked for but not touched costs nothing, so a matrix that turns out to be a large one
            # gets all it can ever need at once, and never has to be copied.
            rows = self._capacity if self.count >= _COMMON else min(4 * self.count, self._capacity)
            grown = self._allocate(rows)
            grown[: self.count] = self._rows
            self._rows = grown
        self._rows[self.count].copy_(torch.from_numpy(row))
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
        """All rows [count, length] in the order they came."""
        return self._rows[: self.count]
