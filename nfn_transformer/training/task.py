"""Base of the tasks: the loss of a predictor's outputs, how they are measured, and how they are written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Protocol

from torch import Tensor

from nfn_transformer.models.predictor import SinglePredictor
from nfn_transformer.training.metrics import Interval
from nfn_transformer.training.tasks import TASKS, TaskEntry
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo


class Measures(Protocol):
    """Frozen dataclass of numbers that measure predictions; its fields are columns of metrics.csv."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def loss(self) -> float:
        """Return the mean loss."""

    @property
    def summary(self) -> str:
        """Return all measures but the loss as text, the one that runs are compared by first."""

    def line(self, interval: Interval | None) -> str:
        """Return all measures as a line for the screen, with the interval of the first one."""


class Task:
    """Base of a task of one zoo; a subclass is a frozen dataclass with fields for what the training side tells.

    A predictor's outputs for b networks are [b] where `outputs` is 1, else [b, outputs].
    """

    name: str
    """name among TASKS"""
    measures: ClassVar[Callable[..., Measures]]
    """class of the measures"""
    outputs: int = 1
    """number of outputs for each network"""
    label_dims: ClassVar[int] = 0
    """dimensions of a network's label"""
    predictor: ClassVar[type] = SinglePredictor
    """class of the model, built from a spec, a configuration and the number of outputs"""
    measure: Callable[[Tensor, Tensor], Any]
    """from outputs and labels [n] to the measures"""
    is_better: Callable[[Any, Any], bool]
    """whether an epoch's validation measures beat the best so far; on a full tie the earlier epoch stays"""
    losses: Callable[[Tensor, Tensor], Tensor]
    """from outputs [..., b] or [..., b, outputs] and labels [..., b, ...] to losses [..., b] of the training"""

    @property
    def entry(self) -> TaskEntry:
        """Declaration of the task."""
        return TASKS[self.name]

    def labels_of(self, zoo: Zoo | MixedZoo) -> Tensor:
        """Return the labels [n, ...] of a zoo's networks.

        Raises:
            ZooError: a label is not of the task.
        """
        return zoo.labels

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predicted labels [n] from outputs on the CPU."""
        raise NotImplementedError

    def outputs_of(self, outputs: Tensor, other: "Task") -> Tensor:
        """Return the outputs that mean of this task what the given ones mean of another instance of it."""
        return outputs

    def interval(self, outputs: Tensor, labels: Tensor, runs: Sequence[str], seed: int) -> Interval:
        """Return the 95 % bootstrap interval of the measure that runs are compared by."""
        raise NotImplementedError

    def columns(self, outputs: Tensor, labels: Tensor | None = None) -> dict[str, list]:
        """Return name -> n values of the columns of predictions in a CSV, `predicted` first."""
        raise NotImplementedError

    def lines(self, outputs: Tensor) -> list[str]:
        """Return n texts, a prediction each, for the screen."""
        raise NotImplementedError

    def references(self, labels: Tensor, train_labels: Tensor) -> dict[str, float]:
        """Return name -> number of what the scores of test labels [n] are to be compared with."""
        return {}

    def draw(self, folder: Path, outputs: Tensor, labels: Tensor, title: str) -> None:
        """Write pictures of the test predictions into a run's directory."""

    def to_json(self) -> dict[str, Any]:
        """Return name and fields of the task, to be written as JSON."""
        return dict(vars(self))


def task_from_json(values: Mapping[str, Any]) -> Task:
    """Return the task that `Task.to_json` gave.

    Raises:
        KeyError, TypeError, ValueError: the values are none of a task.
    """
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return resolve_name(TASKS[values["name"]].build)(**lists)
