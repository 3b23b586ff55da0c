"""How sure a tau is: a bootstrap interval over the networks that it was measured on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.seeding import make_generator
from nfn_transformer.training.metrics import kendall_tau

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class TauInterval:
    """A percentile bootstrap interval of tau (Efron and Tibshirani 1993, section 13.3).

    Fields: low and high, in [-1, 1], nan where tau was undefined in every draw; level, in (0, 1); draws, how many were
    taken; undefined, how many of them had no tau and are left out.
    """

    low: float
    high: float
    level: float
    draws: int
    undefined: int

    def __str__(self) -> str:
        text = f"[{self.low:.4f}, {self.high:.4f}]"
        return f"{text} without {self.undefined} of {self.draws} draws" if self.undefined else text


def tau_interval(
    predictions: Tensor, labels: Tensor, runs: Sequence[str], seed: int, draws: int = DRAWS
) -> TauInterval:
    """The 95 % interval of Kendall's tau-b over test networks.

    Whole runs are drawn, with replacement: checkpoints of one run, and transformed copies of one network, are no
    independent evidence. Where each run has one checkpoint, these are the networks themselves.

    Args:
        predictions, labels: [n].
        runs: run id of each of the n networks.
        seed: of the draws.
        draws: how many.
    """
    predictions, labels = predictions.double().cpu(), labels.double().cpu()
    number = {run: place for place, run in enumerate(sorted(set(runs)))}
    members = [[] for _ in number]
    for place, run in enumerate(runs):
        members[number[run]].append(place)
    members = [torch.tensor(places) for places in members]
    generator = make_generator(seed, "bootstrap")
    found = []
    for _ in range(draws):
        drawn = torch.randint(len(members), (len(members),), generator=generator).tolist()
        index = torch.cat([members[run] for run in drawn])
        found.append(kendall_tau(predictions[index], labels[index]))
    defined = torch.tensor([tau for tau in found if not math.isnan(tau)], dtype=torch.float64)
    low = high = math.nan
    if len(defined):
        low, high = (defined.quantile(level).item() for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return TauInterval(low, high, LEVEL, draws, draws - len(defined))
