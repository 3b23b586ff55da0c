"""Calibration of predictions to a few known networks: scale and offset, on the logit of accuracies."""

from dataclasses import dataclass

from torch import Tensor

from nfn_transformer.errors import UserError
from nfn_transformer.families.registry import AnySpec
from nfn_transformer.models.predictor import Predictor
from nfn_transformer.training.number_tasks import NumberTask
from nfn_transformer.training.task import Task
from nfn_transformer.training.trained_predictor import TrainedPredictor
from nfn_transformer.trees.fitting import TreeModel
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

FEWEST_FOR_A_SCALE = 3
"""Known networks below which the offset alone is fitted."""

# So that accuracies of 0 and 1 have finite logits.
_LEAST_ACCURACY = 1e-3


@dataclass(frozen=True)
class Calibration:
    """Map of predictions p to `scale * p + offset`; of accuracies that of their logits."""

    scale: float
    """positive, so that no ranking changes"""
    offset: float
    networks: int
    """number of known networks"""
    on_logits: bool
    """True for accuracies"""
    note: str = ""
    """why the scale is not fitted; empty where it is"""

    def apply(self, task: NumberTask, outputs: Tensor) -> Tensor:
        """Return the outputs [n] of a task that mean calibrated predictions."""
        line = self.scale * _on_line(task.predictions(outputs), self.on_logits) + self.offset
        return task.outputs_of_predictions(line.sigmoid() if self.on_logits else line)

    def __str__(self) -> str:
        kind = "logit" if self.on_logits else "prediction"
        text = f"calibrated to {self.networks} known networks: {self.scale:.4g} x {kind} {self.offset:+.4g}"
        return f"{text} ({self.note})" if self.note else text


def fit_calibration(task: NumberTask, outputs: Tensor, labels: Tensor) -> Calibration:
    """Return the calibration of least squares to outputs [n] and labels [n] of known networks.

    The scale is 1 below FEWEST_FOR_A_SCALE networks, and where it would not be positive.
    """
    on_logits = task.entry.labels == "accuracy"
    x, y = _on_line(task.predictions(outputs), on_logits), labels.double()
    y = y.clamp(_LEAST_ACCURACY, 1 - _LEAST_ACCURACY).logit() if on_logits else y
    centred = x - x.mean()
    spread, scale, note = centred.square().sum().item(), 1.0, ""
    if len(x) < FEWEST_FOR_A_SCALE:
        note = f"fewer than {FEWEST_FOR_A_SCALE}: the offset alone is fitted"
    elif spread > 0 and (slope := (centred * (y - y.mean())).sum().item() / spread) > 0:
        scale = slope
    else:
        note = "they are ranked the other way: the offset alone is fitted"
    return Calibration(scale, (y.mean() - scale * x.mean()).item(), len(x), on_logits, note)


def _on_line(predictions: Tensor, on_logits: bool) -> Tensor:
    """Return predictions [n], float64; of accuracies their logits, those of trees kept from 0 and 1."""
    return predictions.double().clamp(1e-12, 1 - 1e-12).logit() if on_logits else predictions.double()


class CalibratedPredictor:
    """A trained predictor whose outputs mean calibrated predictions (`trained_predictor.TrainedPredictor`)."""

    def __init__(self, trained: TrainedPredictor, calibration: Calibration):
        self.trained, self.calibration = trained, calibration
        self.spec: AnySpec = trained.spec
        self.consensus = trained.consensus
        self._task = number_task(trained)
        self.task: Task = self._task

    @property
    def model(self) -> Predictor | TreeModel:
        """Return the network or the trees."""
        return self.trained.model

    @property
    def size(self) -> dict[str, int]:
        """Return how many parameters or trees it has."""
        return self.trained.size

    def supports(self, spec: AnySpec) -> bool:
        """Return whether it reads networks of these sizes."""
        return self.trained.supports(spec)

    def outputs(self, zoo: Zoo | MixedZoo, index: Tensor) -> Tensor:
        """Return the outputs [n] of the checkpoints that `index` [n] selects."""
        return self.calibration.apply(self._task, self.trained.outputs(zoo, index))

    def outputs_of(self, weights: Weights) -> Tensor:
        """Return the outputs [n] of n networks."""
        return self.calibration.apply(self._task, self.trained.outputs_of(weights))


def number_task(trained: TrainedPredictor) -> NumberTask:
    """Return the task of a predictor of numbers.

    Raises:
        UserError: the predictor has another task.
    """
    if not isinstance(trained.task, NumberTask):
        raise UserError(f"--calibrate: requires a predictor of numbers, got --task {trained.task.name}")
    return trained.task
