"""A matrix that grows row by row and stands in memory once."""

import torch
from numpy import ndarray
from torch import Tensor

# So many rows of one length are no longer a rare exception.
_COMMON = 64


class RowMatrix:
    """Rows of one length, float32.

    Args:
        length: numbers in a row.
        capacity: the most rows that can come.
    """

    def __init__(self, length: int, capacity: int):
        self._capacity = capacity
        self._rows = torch.empty(1, length)
        self.count = 0

    def append(self, row: ndarray) -> None:
        """Add a row [length]."""
        if self.count == len(self._rows):
            # Memory that is asked for but not touched costs nothing, so a matrix that turns out to be a large one
            # gets all it can ever need at once, and never has to be copied.
            rows = self._capacity if self.count >= _COMMON else min(4 * self.count, self._capacity)
            grown = torch.empty(rows, self._rows.shape[1])
            grown[: self.count] = self._rows
            self._rows = grown
        self._rows[self.count].copy_(torch.from_numpy(row))
        self.count += 1

    def rows(self) -> Tensor:
        """All rows [count, length] in the order they came."""
        return self._rows[: self.count]
