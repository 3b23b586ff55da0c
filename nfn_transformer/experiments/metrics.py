"""How good predictions are: Kendall's tau-b, R2, mean absolute error and cross entropy."""

import math
from dataclasses import dataclass

import torch
from scipy.stats import kendalltau
from torch import Tensor


@dataclass(frozen=True)
class Metrics:
    """loss: mean binary cross entropy against the accuracy; tau: Kendall's tau-b in [-1, 1], nan where
    it is undefined; r2: coefficient of determination, at most 1, nan where all accuracies are equal;
    mae: mean absolute error in [0, 1]."""

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


def measure(logits: Tensor, labels: Tensor) -> Metrics:
    """Metrics of the predictions sigmoid(logits) [n] against accuracies [n] in [0, 1]."""
    logits, labels = logits.double().cpu(), labels.double().cpu()
    predictions = logits.sigmoid()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).item()
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
