"""A run's hyperparameters as a zoo's metadata tells them, as numbers: what a predictor can know without the weights."""

from collections.abc import Sequence

NUMBERS = (
    *("lr", "w_init_std", "l2_regularize", "train_fraction", "dropout", "epochs"),
    *("embed_dim", "n_attention_heads", "n_layers"),
)
"""Columns of the metadata that are read as numbers."""

OPTIMIZERS = ("adam", "rmsprop", "sgd", "sgd_momentum")
"""What the column `optimizer` is compared with, one number for each."""

COLUMNS = (*NUMBERS, "optimizer")
HYPERPARAMETERS = (*NUMBERS, *(f"optimizer is {name}" for name in OPTIMIZERS))
"""What the numbers of `encode` mean, in their order."""

ABSENT = -1.0
"""Where a table has no such column, or a cell is empty or no number: none of these is ever negative."""

# Of float32; nan is not below it either.
_LARGEST = 3e38


def places(header: Sequence[str]) -> list[int | None]:
    """Where a table with this header has COLUMNS; None for those that it lacks."""
    return [header.index(column) if column in header else None for column in COLUMNS]


def encode(cells: Sequence[str]) -> list[float]:
    """The numbers HYPERPARAMETERS from the cells of a row in COLUMNS."""
    *numbers, optimizer = cells
    named = [float(optimizer.lower() == name) if optimizer else ABSENT for name in OPTIMIZERS]
    return [*map(_number, numbers), *named]


def _number(cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        return ABSENT
    return number if abs(number) < _LARGEST else ABSENT
