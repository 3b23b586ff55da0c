"""Task whose labels are classes: cross entropy, accuracy with its interval, and the confusion matrix."""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from nfn_transformer.errors import UserError
from nfn_transformer.figures import new_figure, optional_picture, save_png
from nfn_transformer.printable import printable, quoted
from nfn_transformer.rms import root_mean_square
from nfn_transformer.training.config import DataConfig, RunConfig
from nfn_transformer.training.data import Split
from nfn_transformer.training.metrics import Interval, bootstrap_interval
from nfn_transformer.training.task import Task
from nfn_transformer.zoo.reading import Zoo, labels_among
from nfn_transformer.zoo.several_sizes import MixedZoo

MOST_NAMED = 40
"""Classes up to which the confusion matrix shows names and counts."""

FEW_CLASSES = 20
"""Numbers that may be the names of classes, however few networks share one."""

_DECIMAL = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


@dataclass(frozen=True)
class ClassMetrics:
    """Measures of predicted classes."""

    loss: float
    """networks: mean cross entropy; tree models: root mean squared error of indicators"""
    accuracy: float
    """share of right classes in [0, 1]"""

    @property
    def summary(self) -> str:
        """Return the accuracy as text."""
        return f"accuracy {self.accuracy:.4f}"

    def line(self, interval: Interval | None) -> str:
        """Return the measures as a line for the screen."""
        return f"accuracy {self.accuracy:.4f}{'' if interval is None else f' {interval}'}  loss {self.loss:.4f}"


@dataclass(frozen=True)
class ClassTask(Task):
    """Classes: outputs are a logit for each, the loss is cross entropy."""

    name: str = "classify"
    measures: ClassVar[Callable[..., ClassMetrics]] = ClassMetrics
    classes: tuple[str, ...] = ()
    """names, at least two"""

    def __post_init__(self):
        if len(self.classes) < 2 or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes {self.classes!r}, expected at least two names")

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return len(self.classes)

    def labels_of(self, zoo: Zoo | MixedZoo) -> Tensor:
        """Return the classes [n] of a zoo's networks as positions in `classes`."""
        return labels_among(zoo, self.classes)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropies [..., b] of logits [..., b, classes]."""
        flat = cross_entropy(outputs.flatten(0, -2), labels.flatten().long(), reduction="none")
        return flat.view(labels.shape)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predicted classes [n], int64 positions in `classes`."""
        return outputs.argmax(-1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probabilities [n, classes] in float64."""
        return outputs.double().softmax(-1)

    def measure(self, outputs: Tensor, labels: Tensor) -> ClassMetrics:
        """Return loss and accuracy against true classes [n]."""
        outputs, labels = outputs.double().cpu(), labels.cpu()
        right = self.predictions(outputs) == labels
        return ClassMetrics(self.losses(outputs, labels).mean().item(), right.double().mean().item())

    def is_better(self, candidate: ClassMetrics, best: ClassMetrics) -> bool:
        """Return whether the accuracy is higher, or equal with a lower loss; a loss that is nan is the worst one."""
        ranks = [(each.accuracy, -math.inf if math.isnan(each.loss) else -each.loss) for each in (candidate, best)]
        return ranks[0] > ranks[1]

    def interval(self, outputs: Tensor, labels: Tensor, runs: Sequence[str], seed: int) -> Interval:
        """Return the interval of the accuracy."""
        right = (self.predictions(outputs) == labels).double()
        return bootstrap_interval(lambda index: right[index].mean().item(), runs, seed)

    def columns(self, outputs: Tensor, labels: Tensor | None = None) -> dict[str, list]:
        """Return the columns `predicted`, `probability` and, where classes are known, `label`: names of classes."""
        most = self.probabilities(outputs).max(-1)
        columns = {"predicted": self._names(self.predictions(outputs)), "probability": most.values.tolist()}
        return columns if labels is None else {**columns, "label": self._names(labels)}

    def lines(self, outputs: Tensor) -> list[str]:
        """Return the predicted classes with their probabilities."""
        columns = self.columns(outputs)
        pairs = zip(columns["predicted"], columns["probability"], strict=True)
        return [f"{printable(name)} {probability:.4f}" for name, probability in pairs]

    def references(self, labels: Tensor, train_labels: Tensor) -> dict[str, float]:
        """Return the accuracy of predicting the training side's most common class for every network."""
        majority = train_labels.long().bincount(minlength=len(self.classes)).argmax()
        return {"accuracy_of_the_most_common_class": (labels == majority).double().mean().item()}

    @optional_picture()
    def draw(self, folder: Path, outputs: Tensor, labels: Tensor, title: str) -> None:
        """Write the confusion matrix (PNG): how many networks of each class, a row, got each prediction."""
        count = len(self.classes)
        pairs = labels.long() * count + self.predictions(outputs)
        matrix = pairs.bincount(minlength=count**2).view(count, count)
        size = 3 + 0.35 * min(count, MOST_NAMED)
        figure = new_figure(size, size, layout="constrained")
        axes = figure.add_subplot(xlabel="predicted class", ylabel="true class", title=title)
        axes.imshow(matrix.tolist(), cmap="Blues")
        if count <= MOST_NAMED:
            names = [printable(name, 20).replace("$", r"\$") for name in self.classes]
            axes.set_xticks(range(count), names, rotation=90 if max(map(len, names)) > 2 else 0)
            axes.set_yticks(range(count), names)
            half = matrix.max().item() / 2
            for row, column in itertools.product(range(count), repeat=2):
                networks = int(matrix[row, column])
                colour = "white" if networks > half else "black"
                axes.text(column, row, networks or "", ha="center", va="center", color=colour, fontsize=8)
        save_png(figure, folder / "confusion_matrix.png")

    def _names(self, positions: Tensor) -> list[str]:
        return [self.classes[position] for position in positions.long().tolist()]


@dataclass(frozen=True)
class TreeClassTask(ClassTask):
    """Classes that trees learn as indicators of 0 and 1: outputs are the shares of the classes in the leaves."""

    def is_better(self, candidate: ClassMetrics, best: ClassMetrics) -> bool:
        """Return whether the error is lower."""
        return candidate.loss < best.loss

    def targets(self, labels: Tensor) -> Tensor:
        """Return the indicators [n, classes] that trees are fitted to, float32."""
        return one_hot(labels.long(), len(self.classes)).float()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the shares [n, classes] in float64."""
        return outputs.double()

    def measure(self, outputs: Tensor, labels: Tensor) -> ClassMetrics:
        """Return accuracy and the root mean squared error of the indicators."""
        error = root_mean_square(outputs.double() - self.targets(labels))
        return ClassMetrics(error, (self.predictions(outputs) == labels).double().mean().item())


def fit_classes(zoo: Zoo | MixedZoo, split: Split, config: DataConfig) -> dict[str, tuple[str, ...]]:
    """Return the names of a zoo's classes."""
    return {"classes": zoo.classes}


def check_classes(config: RunConfig, zoo: Zoo | MixedZoo) -> None:
    """Raise UserError where a zoo has fewer than two classes, or where its classes look like measured numbers.

    Measured numbers have decimals, and hardly any networks share one.
    """
    names, most = zoo.classes, min(len(zoo) / 2, max(FEW_CLASSES, len(zoo) / 10))
    if len(names) < 2:
        raise UserError(f"--task classify: expected at least two classes, got {', '.join(names) or 'none'}")
    if len(names) > most and all(map(_DECIMAL.fullmatch, names)) and not all(map(str.isdecimal, names)):
        column = "" if config.data.label_column is None else f" in column {quoted(config.data.label_column)}"
        raise UserError(
            f"--task classify: expected classes, got {len(names)} numbers from {names[0]} to {names[-1]}{column} as "
            f"labels of {len(zoo)} networks; --task regress learns numbers, --task accuracy those in [0, 1]"
        )
