"""What a training has done so far: finished epochs of a network, or rounds of a tree model."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol

from nfn_transformer.training.metrics import Metrics, is_better, is_lower


class Record(Protocol):
    """One finished epoch or round."""

    validation: Metrics

    @property
    def number(self) -> int:
        """Counted from 1."""

    def row(self) -> dict[str, float]:
        """The record as a flat row of metrics.csv."""

    def line(self, total: int) -> str | None:
        """The record as one line for the screen; None where it is not worth one."""


def validation_columns(validation: Metrics) -> dict[str, float]:
    """Validation metrics as columns of metrics.csv."""
    return {f"validation_{name}": value for name, value in asdict(validation).items()}


def validation_line(validation: Metrics) -> str:
    """Validation metrics for the screen."""
    v = validation
    return f"validation loss {v.loss:.4f}  tau {v.tau:.4f}  R2 {v.r2:.4f}  MAE {v.mae:.4f}"


@dataclass
class Progress:
    """The finished epochs or rounds of a run.

    Fields: history, one record for each; unit, "epoch" or "round"; better, whether validation metrics beat the best
    so far; diverged, why the training stopped early, if it did.
    """

    history: list[Record] = field(default_factory=list)
    unit: str = "epoch"
    better: Callable[[Metrics, Metrics], bool] = is_better
    diverged: str | None = None

    @classmethod
    def by_rounds(cls) -> "Progress":
        """Of a tree model, whose best round has the lowest validation loss."""
        return cls(unit="round", better=is_lower)

    @property
    def best(self) -> Record | None:
        """The best record by validation; of equal ones the earliest."""
        best = None
        for record in self.history:
            if best is None or self.better(record.validation, best.validation):
                best = record
        return best
