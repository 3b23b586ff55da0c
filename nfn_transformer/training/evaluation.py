"""Evaluation of a predictor on labelled networks: predictions, measures, and what they leave out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nfn_transformer.training.metrics import Interval
from nfn_transformer.training.results import few_networks
from nfn_transformer.zoo.runs import TRAIN, VALIDATION


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Predictions for labelled networks, and how good they are; `print` shows the measures in one line."""

    split: str
    """Scored networks: `test`, the test split of the predictor's own zoo; `all`, a whole zoo; `unseen`, a part."""
    names: list[str]
    """File names of the n networks."""
    predicted: Tensor
    """Predicted labels [n]: float64 accuracies or other numbers, or int64 positions in the classes."""
    labels: Tensor
    """True labels [n]."""
    metrics: Any
    """All measures: `Metrics` of numbers, `ClassMetrics` of classes."""
    interval: Interval
    """95 % bootstrap interval of tau, or of the accuracy of classes, with the bounds `low` and `high`."""
    columns: Mapping[str, list] = field(default_factory=dict)
    """Columns of predictions in a CSV, see `Task.columns`."""
    sides: Sequence[str] = ()
    """Side of each network that the predictor was trained on (`train`) or selected by (`validation`), else ""."""
    left_out: int = 0
    """Networks that are not scored, as the predictor was trained on them or selected by them."""
    references: Mapping[str, float] = field(default_factory=dict)
    """Numbers that the measures are to be compared with, by name; see `Task.references`.
    The scored networks' labels stand for those of the training side."""
    note: str = ""
    """Sentence on what cannot be told."""

    @property
    def tau(self) -> float:
        """Return Kendall's tau-b between predicted and true numbers; NaN where it is undefined."""
        return self.metrics.tau

    @property
    def r2(self) -> float:
        """Return the coefficient of determination."""
        return self.metrics.r2

    @property
    def mae(self) -> float:
        """Return the mean absolute error."""
        return self.metrics.mae

    @property
    def accuracy(self) -> float:
        """Return the share of right classes."""
        return self.metrics.accuracy

    @property
    def loss(self) -> float:
        """Return the mean of the task's loss, or the root mean squared error of a tree model."""
        return self.metrics.loss

    @property
    def warnings(self) -> list[str]:
        """Return sentences on networks that the predictor has seen in training."""
        counts = {side: self.sides.count(side) for side in (TRAIN, VALIDATION)}
        lines = []
        if self.left_out:
            lines.append(
                f"{self.left_out} networks are left out, as the predictor was trained on them or selected by them"
            )
        if any(counts.values()):
            seen = (
                f"trained on {counts[TRAIN]} and selected by {counts[VALIDATION]} of these {len(self.names)} networks"
            )
            lines.append(f"warning: the predictor was {seen}; its scores are too good")
        return [*lines, *([self.note] if self.note else [])]

    def __str__(self) -> str:
        scores = self.metrics.line(self.interval)
        counted = f"({len(self.names)} networks{few_networks(len(self.names))})"
        return "\n".join([f"{scores}  {counted}", *self.warnings])

    __repr__ = __str__
