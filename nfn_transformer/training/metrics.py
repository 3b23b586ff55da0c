"""Metrics of predictions: Kendall's tau-b with its bootstrap interval, R2, mean absolute error, and the loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from nfn_transformer.rms import root_mean_square
from nfn_transformer.seeding import make_generator

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Metrics:
    """Measures of predictions against accuracies."""

    loss: float
    """networks: mean binary cross entropy; tree models: root mean squared error"""
    tau: float
    """Kendall's tau-b in [-1, 1]; nan where it is undefined"""
    r2: float
    """coefficient of determination, at most 1; nan where all accuracies are equal"""
    mae: float
    """mean absolute error"""


def kendall_tau(predictions: Tensor, labels: Tensor) -> float:
    """Return Kendall's tau-b of two vectors [n]; nan where one is constant or shorter than two.

    ```python
    nfn.kendall_tau(torch.tensor([0.1, 0.5, 0.4]), torch.tensor([0.2, 0.9, 0.6]))  # 1.0
    ```
    """
    if len(labels) < 2 or bool((predictions == predictions[0]).all()) or bool((labels == labels[0]).all()):
        return math.nan
    if not bool(torch.isfinite(predictions).all()):
        return math.nan
    from scipy.stats import kendalltau  # as long to import as PyTorch, and only validation needs it

    return float(kendalltau(predictions.cpu().numpy(), labels.cpu().numpy(), variant="b").statistic)


def measure_logits(logits: Tensor, labels: Tensor) -> Metrics:
    """Return the metrics of a network's predictions sigmoid(logits) [n] against accuracies [n] in [0, 1]."""
    logits, labels = logits.double().cpu(), labels.double().cpu()
    return _measure(logits.sigmoid(), labels, binary_cross_entropy_with_logits(logits, labels).item())


def measure_regression(predictions: Tensor, labels: Tensor) -> Metrics:
    """Return the metrics of a tree model's predictions [n] against accuracies [n] in [0, 1]."""
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
    """Return whether an epoch's validation metrics beat the best so far: higher tau, then lower loss.

    An undefined tau or loss is the worst one. On a full tie the earlier epoch stays.
    """
    return _rank(candidate) > _rank(best)


def _rank(metrics: Metrics) -> tuple[float, float]:
    tau = -math.inf if math.isnan(metrics.tau) else metrics.tau
    return tau, -math.inf if math.isnan(metrics.loss) else -metrics.loss


def is_lower(candidate: Metrics, best: Metrics) -> bool:
    """Return whether a round's validation loss is below the best so far; on a tie the earlier round stays."""
    return candidate.loss < best.loss


@dataclass(frozen=True)
class TauInterval:
    """A percentile bootstrap interval of tau (Efron and Tibshirani 1993, section 13.3)."""

    low: float
    """in [-1, 1]; nan where tau was undefined in every draw"""
    high: float
    """as `low`"""
    level: float
    """in (0, 1)"""
    draws: int
    undefined: int
    """draws without a tau, which are left out"""

    def __str__(self) -> str:
        text = f"[{self.low:.4f}, {self.high:.4f}]"
        return f"{text} without {self.undefined} of {self.draws} draws" if self.undefined else text


def tau_interval(
    predictions: Tensor, labels: Tensor, runs: Sequence[str], seed: int, draws: int = DRAWS
) -> TauInterval:
    """Return the 95 % interval of Kendall's tau-b over test networks.

    Whole runs are drawn, with replacement: checkpoints of one run, and transformed copies of one network, are no
    independent evidence. Where each run has one checkpoint, these are the networks themselves.

    Args:
        predictions, labels: [n].
        runs: run id of each of the n networks.
        seed: of the draws.
        draws: how many.
    """
    predictions, labels = predictions.double().cpu(), labels.double().cpu()
    number = {run: index for index, run in enumerate(sorted(set(runs)))}
    members: list[list[int]] = [[] for _ in number]
    for index, run in enumerate(runs):
        members[number[run]].append(index)
    networks = [torch.tensor(indices) for indices in members]
    generator = make_generator(seed, "bootstrap")
    taus = []
    for _ in range(draws):
        drawn = torch.randint(len(networks), (len(networks),), generator=generator).tolist()
        chosen = torch.cat([networks[run] for run in drawn])
        taus.append(kendall_tau(predictions[chosen], labels[chosen]))
    defined = torch.tensor([tau for tau in taus if not math.isnan(tau)], dtype=torch.float64)
    low = high = math.nan
    if len(defined):
        low, high = (defined.quantile(level).item() for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return TauInterval(low, high, LEVEL, draws, draws - len(defined))
