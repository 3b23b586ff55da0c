"""What one finished epoch has found."""

from dataclasses import dataclass

from nfn_transformer.training.metrics import Metrics
from nfn_transformer.training.progress import validation_columns, validation_line


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: training loss, validation metrics, learning rate, seconds."""

    epoch: int
    train_loss: float
    validation: Metrics
    lr: float
    seconds: float

    @property
    def number(self) -> int:
        """The epoch, counted from 1."""
        return self.epoch

    def row(self) -> dict[str, float]:
        """The record as a flat row of metrics.csv."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            **validation_columns(self.validation),
            "lr": self.lr,
            "seconds": self.seconds,
        }

    @classmethod
    def from_row(cls, row: dict[str, float]) -> "EpochRecord":
        """The record that `row` gave."""
        prefix = "validation_"
        validation = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        return cls(row["epoch"], row["train_loss"], Metrics(**validation), row["lr"], row["seconds"])

    def line(self, total: int) -> str:
        """The record as one line for the screen."""
        return (
            f"epoch {self.epoch:>{len(str(total))}}/{total}  train loss {self.train_loss:.4f}  "
            f"{validation_line(self.validation)}  lr {self.lr:.2e}  {self.seconds:.1f} s"
        )
