"""The finished epochs of a network's training, or the rounds of a tree model's, and which of them is the best."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from nfn_transformer.training.metrics import is_better
from nfn_transformer.training.results import PEAK
from nfn_transformer.training.task import Measures

_PREFIX = "validation_"
# A line on the screen is written for at most about so many rounds.
_LINES_OF_ROUNDS = 100


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a network's training."""

    number: int
    """counted from 1"""
    train_loss: float
    """mean of the task's loss over the epoch's batches"""
    validation: Measures
    lr: float
    seconds: float
    peak_mib: float
    """see `resources.peak_mib`; nan where it is not known"""

    def row(self) -> dict[str, float]:
        """Return the record as a row of metrics.csv."""
        validation = _columns(self.validation)
        start = {"epoch": self.number, "train_loss": self.train_loss}
        return {**start, **validation, "lr": self.lr, "seconds": self.seconds, PEAK: self.peak_mib}

    @classmethod
    def from_row(cls, row: dict[str, float], measures: Callable[..., Measures]) -> "EpochRecord":
        """Return the record whose row is given, with the measures of its task.

        Raises:
            KeyError, TypeError: the row has other columns.
        """
        validation = {name.removeprefix(_PREFIX): value for name, value in row.items() if name.startswith(_PREFIX)}
        costs = row["seconds"], row.get(PEAK, math.nan)  # earlier versions did not record the peak
        return cls(int(row["epoch"]), row["train_loss"], measures(**validation), row["lr"], *costs)

    def line(self, total: int) -> str:
        """Return the record, one of `total`, as a line for the screen."""
        count = f"epoch {self.number:>{len(str(total))}}/{total}"
        return f"{count}  {_losses(self)}  lr {self.lr:.2e}  {self.seconds:.1f} s"


@dataclass(frozen=True)
class RoundRecord:
    """One round of a tree model's training."""

    number: int
    """counted from 1"""
    train_loss: float
    """root mean squared error on the training side"""
    validation: Measures
    seconds: float
    peak_mib: float
    """of the process, also where the trees are on a GPU, which does not tell what they take"""

    def row(self) -> dict[str, float]:
        """Return the record as a row of metrics.csv."""
        validation = _columns(self.validation)
        start = {"round": self.number, "train_loss": self.train_loss}
        return {**start, **validation, "seconds": self.seconds, PEAK: self.peak_mib}

    def line(self, total: int) -> str | None:
        """Return the record, one of `total`, as a line for the screen; None where it is skipped."""
        if self.number > 1 and self.number % max(1, total // _LINES_OF_ROUNDS):
            return None
        return f"round {self.number:>{len(str(total))}}/{total}  {_losses(self)}  {self.seconds:.1f} s"


Record = EpochRecord | RoundRecord


def _columns(validation: Measures) -> dict[str, float]:
    return {f"{_PREFIX}{name}": value for name, value in asdict(validation).items()}


def _losses(record: Record) -> str:
    validation = record.validation
    return f"train loss {record.train_loss:.4f}  validation loss {validation.loss:.4f}  {validation.summary}"


def later_is_better(candidate: Measures, best: Measures) -> bool:
    """Return True: without a validation side the last epoch or round is the one that is kept."""
    return True


@dataclass
class History:
    """The finished epochs or rounds of a run."""

    records: list[Record] = field(default_factory=list)
    unit: str = "epoch"
    """epoch or round"""
    better: Callable[[Any, Any], bool] = is_better
    """whether validation measures beat the best so far"""
    diverged: str | None = None
    """why the training stopped early on a loss that is not finite"""

    @property
    def best(self) -> Record | None:
        """Return the best record by validation, of equal ones the earliest; None without any."""
        best = None
        for record in self.records:
            if best is None or self.better(record.validation, best.validation):
                best = record
        return best
