"""Metrics of predicted numbers: Kendall's tau-b, R2, mean absolute error, loss; bootstrap intervals of any measure."""

import math
from collections.abc import Callable, Sequence
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
    """Measures of predictions against accuracies or other numbers."""

    loss: float
    """networks: mean of the task's loss; tree models: root mean squared error"""
    tau: float
    """Kendall's tau-b in [-1, 1]; nan where it is undefined"""
    r2: float
    """coefficient of determination, at most 1; nan where all accuracies are equal"""
    mae: float
    """mean absolute error"""

    @property
    def summary(self) -> str:
        """Return all measures but the loss as text."""
        return f"tau {self.tau:.4f}  R2 {self.r2:.4f}  MAE {self.mae:.4f}"

    def line(self, interval: "Interval | None") -> str:
        """Return the measures as a line for the screen; an undefined tau is nan, with a warning."""
        between = "" if interval is None or math.isnan(interval.low) else f" {interval}"
        line = f"tau {self.tau:.4f}{between}  R2 {self.r2:.4f}  MAE {self.mae:.4f}  loss {self.loss:.4f}"
        if math.isnan(self.tau):
            line += "  (warning: tau is undefined where all predictions, or all labels, are equal)"
        return line


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


def tau_ceiling(labels: Tensor) -> float:
    """Return the tau-b in [0, 1] of a perfect ranking without ties against labels [n]; nan where it is undefined.

    Of N pairs T have equal labels. However a ranking breaks these ties, tau-b is sqrt(1 - T / N) (Kendall 1945).
    """
    pairs, counts = len(labels) * (len(labels) - 1) / 2, labels.unique(return_counts=True)[1].double()
    tied = float((counts * (counts - 1) / 2).sum())
    return math.sqrt(1 - tied / pairs) if tied < pairs else math.nan


def measure_logits(logits: Tensor, labels: Tensor) -> Metrics:
    """Return the metrics of a network's predictions sigmoid(logits) [n] against accuracies [n] in [0, 1]."""
    logits, labels = logits.double().cpu(), labels.double().cpu()
    return measure_numbers(logits.sigmoid(), labels, binary_cross_entropy_with_logits(logits, labels).item())


def measure_regression(predictions: Tensor, labels: Tensor) -> Metrics:
    """Return the metrics of a tree model's predictions [n] against labels [n]."""
    predictions, labels = predictions.double().cpu(), labels.double().cpu()
    return measure_numbers(predictions, labels, root_mean_square(predictions - labels))


def measure_numbers(predictions: Tensor, labels: Tensor, loss: float) -> Metrics:
    """Return the metrics of predictions [n] against labels [n], float64 on the CPU, with a loss that is known."""
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
class Interval:
    """Percentile bootstrap interval of a measure (Efron and Tibshirani 1993, section 13.3)."""

    low: float
    """nan where the measure was undefined in every draw"""
    high: float
    """as `low`"""
    level: float
    """in (0, 1)"""
    draws: int
    undefined: int
    """draws without a value, which are left out"""

    def __str__(self) -> str:
        text = f"[{self.low:.4f}, {self.high:.4f}]"
        return f"{text} without {self.undefined} of {self.draws} draws" if self.undefined else text


def tau_interval(predictions: Tensor, labels: Tensor, runs: Sequence[str], seed: int, draws: int = DRAWS) -> Interval:
    """Return the 95 % interval of Kendall's tau-b over test networks.

    Args:
        predictions, labels: [n].
        runs, seed, draws: see `bootstrap_interval`.
    """
    predictions, labels = predictions.double().cpu(), labels.double().cpu()
    return bootstrap_interval(lambda index: kendall_tau(predictions[index], labels[index]), runs, seed, draws)


def bootstrap_interval(
    measure: Callable[[Tensor], float], runs: Sequence[str], seed: int, draws: int = DRAWS
) -> Interval:
    """Return the 95 % interval of a measure over test networks.

    Whole runs are drawn, with replacement: checkpoints of one run, and transformed copies of one network, are no
    independent evidence. Where each run has one checkpoint, these are the networks themselves.

    Args:
        measure: of the networks `index` [m], drawn ones repeatedly; nan where it is undefined.
        runs: run id of each of the n networks.
        seed: of the draws.
        draws: how many.
    """
    number = {run: index for index, run in enumerate(sorted(set(runs)))}
    members: list[list[int]] = [[] for _ in number]
    for index, run in enumerate(runs):
        members[number[run]].append(index)
    networks = [torch.tensor(indices) for indices in members]
    generator = make_generator(seed, "bootstrap")
    values = []
    for _ in range(draws):
        drawn = torch.randint(len(networks), (len(networks),), generator=generator).tolist()
        values.append(measure(torch.cat([networks[run] for run in drawn])))
    defined = torch.tensor([value for value in values if not math.isnan(value)], dtype=torch.float64)
    low = high = math.nan
    if len(defined):
        low, high = (defined.quantile(level).item() for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(low, high, LEVEL, draws, draws - len(defined))
