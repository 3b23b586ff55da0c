"""A matrix that grows row by row and never stands in memory twice."""

import numpy
import torch
from numpy import ndarray
from torch import Tensor

# Blocks of this size come from the system and go back to it one by one, unlike smaller ones.
_BLOCK_BYTES = 64 * 2**20


class RowMatrix:
    """Rows of one length, float32, collected in blocks; `take` joins them and frees each block as it goes."""

    def __init__(self, length: int):
        self._length = length
        self._blocks: list[ndarray] = []
        self._filled = 0
        self.count = 0

    def append(self, row: ndarray) -> None:
        """Add a row [length]."""
        if not self._blocks or self._filled == len(self._blocks[-1]):
            most = max(1, _BLOCK_BYTES // (4 * max(1, self._length)))
            # Doubling keeps a shape that only one checkpoint has from costing a whole block.
            self._blocks.append(_empty(min(most, max(1, self.count)), self._length))
            self._filled = 0
        self._blocks[-1][self._filled] = row
        self._filled += 1
        self.count += 1

    def take(self) -> Tensor:
        """All rows [count, length] in the order they came; the matrix is empty afterwards."""
        whole = _empty(self.count, self._length)
        stop = self.count
        while self._blocks:
            block = self._blocks.pop()[: self._filled]
            whole[stop - len(block) : stop] = block
            stop -= len(block)
            self._filled = len(self._blocks[-1]) if self._blocks else 0
        self.count = 0
        return torch.from_numpy(whole)


def _empty(count: int, length: int) -> ndarray:
    # numpy asks for large pages where torch does not: touching a gigabyte of small ones takes seconds.
    return numpy.empty((count, length), dtype=numpy.float32)
