"""How good predictions are: Kendall's tau-b, R2, mean absolute error and the training's loss."""

import math
from dataclasses import dataclass

import torch
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from nfn_transformer.rms import root_mean_square


@dataclass(frozen=True)
class Metrics:
    """loss: what the model is trained to lower, for networks the mean binary cross entropy against the accuracy, for
    tree models the root mean squared error; tau: Kendall's tau-b in [-1, 1], nan where it is undefined; r2:
    coefficient of determination, at most 1, nan where all accuracies are equal; mae: mean absolute error."""

    loss: float
    tau: float
    r2: float
    mae: float


def kendall_tau(predictions: Tensor, labels: Tensor) -> float:
    """Kendall's tau-b of two vectors [n]; nan where one of them is constant or has not two entries."""
    if len(labels) < 2 or bool((predictions == predictions[0]).all()) or bool((labels == labels[0]).all()):
        return math.nan
    if not bool(torch.isfinite(predictions).all()):
        return math.nan
    return float(kendalltau(predictions.cpu().numpy(), labels.cpu().numpy(), variant="b").statistic)


def measure_logits(logits: Tensor, labels: Tensor) -> Metrics:
    """Metrics of the predictions sigmoid(logits) [n] of a network against accuracies [n] in [0, 1]."""
    logits, labels = logits.double().cpu(), labels.double().cpu()
    return _measure(logits.sigmoid(), labels, binary_cross_entropy_with_logits(logits, labels).item())


def measure_regression(predictions: Tensor, labels: Tensor) -> Metrics:
    """Metrics of the predictions [n] of a tree model against accuracies [n] in [0, 1]."""
    predictions, labels = predictions.double().cpu(), labels.double().cpu()
    return _measure(predictions, labels, root_mean_square(predictions - labels))


def _measure(predictions: Tensor, labels: Tensor, loss: float) -> Metrics:
    residual, total = (predictions - labels).square().sum().item(), (labels - labels.mean()).square().sum().item()
    return Metrics(
        loss=loss,
        tau=kendall_tau(predictions, labels),
        r2=1 - residual / total if total > 0 else math.nan,
        mae=(predictions - labels).abs().mean().item(),
    )


def is_better(candidate: Metrics, best: Metrics) -> bool:
    """Whether an epoch's validation metrics beat the best so far: higher tau, an undefined one being
    the worst; of equal ones the lower loss. On a full tie the earlier epoch stays."""
    return _rank(candidate) > _rank(best)


def _rank(metrics: Metrics) -> tuple[float, float]:
    tau = -math.inf if math.isnan(metrics.tau) else metrics.tau
    return tau, -math.inf if math.isnan(metrics.loss) else -metrics.loss


def is_lower(candidate: Metrics, best: Metrics) -> bool:
    """Whether a round's validation loss is below the best so far; on a tie the earlier round stays."""
    return candidate.loss < best.loss
