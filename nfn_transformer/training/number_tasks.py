"""Tasks whose labels are numbers: accuracy, any other number, and both for tree models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from nfn_transformer.figures import new_figure, optional_picture, save_png
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import Split
from nfn_transformer.training.metrics import (
    Interval,
    Metrics,
    is_better,
    is_lower,
    measure_logits,
    measure_numbers,
    measure_regression,
    tau_ceiling,
    tau_interval,
)
from nfn_transformer.training.task import Task
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo


@dataclass(frozen=True)
class NumberTask(Task):
    """Base of the tasks whose labels are numbers."""

    measures: ClassVar[Callable[..., Metrics]] = Metrics
    is_better = staticmethod(is_better)

    def outputs_of_predictions(self, predictions: Tensor) -> Tensor:
        """Return the outputs [n], float64, that mean predicted numbers [n]."""
        raise NotImplementedError

    def interval(self, outputs: Tensor, labels: Tensor, runs: Sequence[str], seed: int) -> Interval:
        """Return the interval of tau."""
        return tau_interval(self.predictions(outputs), labels, runs, seed)

    def columns(self, outputs: Tensor, labels: Tensor | None = None) -> dict[str, list]:
        """Return the columns `predicted` and, where labels are known, `accuracy` or `label`."""
        known = {} if labels is None else {"accuracy" if self.name == "accuracy" else "label": labels.tolist()}
        return {"predicted": self.predictions(outputs).tolist(), **known}

    def lines(self, outputs: Tensor) -> list[str]:
        """Return the predicted numbers."""
        return [f"{number:.4f}" for number in self.predictions(outputs).tolist()]

    def references(self, labels: Tensor, train_labels: Tensor) -> dict[str, float]:
        """Return the tau of a perfect ranking without ties."""
        return {"tau_that_ties_leave": tau_ceiling(labels)}

    @optional_picture()
    def draw(self, folder: Path, outputs: Tensor, labels: Tensor, title: str) -> None:
        """Write a scatter plot (PNG) of predicted against true labels [n]."""
        predicted, is_accuracy = self.predictions(outputs), self.name == "accuracy"
        limits = (0.0, 1.0)
        if not is_accuracy:
            limits = min(labels.min().item(), predicted.min().item()), max(labels.max().item(), predicted.max().item())
            margin = 0.03 * (limits[1] - limits[0]) or 1.0
            limits = limits[0] - margin, limits[1] + margin
        figure = new_figure(5, 5, layout="constrained")
        axes = figure.add_subplot(aspect="equal", xlim=limits, ylim=limits)
        axes.plot(limits, limits, color="0.7", linewidth=1, zorder=1)
        axes.scatter(labels.tolist(), predicted.tolist(), s=12, alpha=0.6, linewidths=0, zorder=2)
        axes.set_xlabel("true test accuracy" if is_accuracy else "label")
        axes.set_ylabel("predicted accuracy" if is_accuracy else "predicted")
        axes.set_title(title)
        save_png(figure, folder / "test_predictions.png")


@dataclass(frozen=True)
class AccuracyTask(NumberTask):
    """Accuracies: outputs are logits, the loss is binary cross entropy."""

    name: str = "accuracy"
    losses = staticmethod(partial(binary_cross_entropy_with_logits, reduction="none"))
    measure = staticmethod(measure_logits)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return predicted accuracies [n] in float64, so that no two logits fall together at 0 or 1."""
        return outputs.double().sigmoid()

    def outputs_of_predictions(self, predictions: Tensor) -> Tensor:
        """Return logits [n]."""
        return predictions.double().logit(eps=1e-12)


@dataclass(frozen=True)
class RegressTask(NumberTask):
    """Numbers: outputs are standardised, the loss is their squared error."""

    name: str = "regress"
    mean: float = 0.0
    """mean of the training side's labels"""
    deviation: float = 1.0
    """standard deviation of the training side's labels, positive"""

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the squared errors of standardised numbers."""
        return mse_loss(outputs, (labels - self.mean) / self.deviation, reduction="none")

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return predicted numbers [n] in float64."""
        return outputs.double() * self.deviation + self.mean

    def outputs_of_predictions(self, predictions: Tensor) -> Tensor:
        """Return standardised numbers [n]."""
        return (predictions.double() - self.mean) / self.deviation

    def outputs_of(self, outputs: Tensor, other: Task) -> Tensor:
        """Return standardised numbers by this task's scale in place of another's."""
        return self.outputs_of_predictions(other.predictions(outputs))

    def measure(self, outputs: Tensor, labels: Tensor) -> Metrics:
        """Return the metrics; the loss is that of standardised numbers."""
        outputs, labels = outputs.double().cpu(), labels.double().cpu()
        return measure_numbers(self.predictions(outputs), labels, self.losses(outputs, labels).mean().item())


def fit_scale(zoo: Zoo | MixedZoo, split: Split, config: DataConfig) -> dict[str, float]:
    """Return mean and deviation of the training side's labels; the deviation is 1 where all are equal."""
    labels = zoo.labels[split.train].double()
    return {"mean": labels.mean().item(), "deviation": labels.std(correction=0).item() or 1.0}


@dataclass(frozen=True)
class TreeTask(NumberTask):
    """Numbers that trees predict as they are, of either task, measured by the root mean squared error."""

    name: str
    """`accuracy` or `regress`"""
    measure = staticmethod(measure_regression)
    is_better = staticmethod(is_lower)

    def targets(self, labels: Tensor) -> Tensor:
        """Return the numbers [n] that trees are fitted to."""
        return labels

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return predicted numbers [n] in float64."""
        return outputs.double()

    def outputs_of_predictions(self, predictions: Tensor) -> Tensor:
        """Return the numbers [n] as they are."""
        return predictions.double()
