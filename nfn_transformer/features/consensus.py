"""Agreement of networks with the class shares that a zoo's good networks vote for: numbers from answers alone.

On a probe x networks of accuracies a_i vote for the class shares t(x) = sum_i w_i p_i(x) / sum_i w_i, w_i = a_i^k. A
network's own vote is taken out of what it is compared with. All numbers depend on a network's function alone, so no
symmetry moves them. Exchanging classes does, as it ruins the accuracy.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

POWERS = (2, 6, 16)
"""Exponents k of the accuracies: how much more a good network's vote counts."""

AGREEMENTS = 8
"""Numbers of a family of probes and a power, see `agreement`."""

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Quantiles over classes of a test's results."""

TEST_NUMBERS = 2 + 2 * len(LEVELS)
"""Numbers of a test, see `results_of_test`."""

# Logarithms of probabilities are cut here: one confident error must not outweigh all else.
_LEAST_LOG, _LEAST_SHARE, _SMALL = -12.0, 1e-6, 1e-6


def weights_of_votes(accuracies: Float[Tensor, " b"]) -> Float64[Tensor, "powers b"]:
    """Return the weights of votes; those of networks without an accuracy, which is NaN, are 0."""
    known = accuracies.double().nan_to_num(nan=0.0).clamp(min=0)
    return torch.stack([known**power for power in POWERS])


def shares(
    logits: Float[Tensor, "b n classes"], votes: Float64[Tensor, "powers b"], totals: Tensor, weights: Tensor
) -> Float[Tensor, "powers b n classes"]:
    """Return the class shares that all others vote for.

    Args:
        logits: answers of b networks to n probes.
        votes: weights of their own votes, 0 of networks that have none.
        totals: sums of all weighted votes, float64 [powers, n, classes].
        weights: sums of the weights, float64 [powers].
    """
    own = votes[:, :, None, None] * logits.double().softmax(-1)
    others = (weights[:, None] - votes).clamp(min=1e-300)
    return ((totals[:, None] - own).clamp(min=0) / others[..., None, None]).to(logits.dtype)


def agreement(
    logits: Float[Tensor, "b n classes"], shares: Float[Tensor, "powers b n classes"], families: Sequence[int]
) -> Float[Tensor, "b numbers"]:
    """Return how far networks agree with class shares t.

    Args:
        logits: answers of b networks to n probes, family after family; p are their probabilities.
        shares: of their own to compare with.
        families: count of the probes of each family.

    Returns:
        For each family, power, and weight of probes (one for all, and the largest share): the means of t.p and of
        t.log p, how often both have the same largest class, and the correlation of centred logits with log t.
    """
    log_p = logits.log_softmax(-1)
    largest, answered = shares.max(-1)
    log_t = shares.clamp(min=_LEAST_SHARE).log()
    centred = logits - logits.mean(-1, keepdim=True)
    centred_t = log_t - log_t.mean(-1, keepdim=True)
    of_probes = torch.stack(
        [
            (shares * log_p.exp()).sum(-1),
            (shares * log_p.clamp(min=_LEAST_LOG)).sum(-1),
            (logits.argmax(-1) == answered).to(logits.dtype),
            (centred * centred_t).sum(-1),
            centred.square().sum(-1).expand_as(largest),
            centred_t.square().sum(-1),
        ]
    )  # [6, powers, b, n]
    numbers = []
    for weight in (torch.ones_like(largest), largest):
        sums = [part.sum(-1) for part in (of_probes * weight).split(list(families), dim=-1)]
        counts = [part.sum(-1) for part in weight.split(list(families), dim=-1)]
        for summed, count in zip(sums, counts, strict=True):  # [6, powers, b], [powers, b]
            together, own, theirs = summed[3:]
            correlation = together / (own * theirs).sqrt().clamp(min=_SMALL)
            numbers.append(torch.cat([summed[:3] / count.clamp(min=_SMALL), correlation[None]]))
    return torch.cat(numbers).flatten(0, 1).transpose(0, 1)


def results_of_test(
    logits: Float[Tensor, "b m classes"], labels: Int64[Tensor, " m"]
) -> Float[Tensor, "b TEST_NUMBERS"]:
    """Return how networks answer labelled inputs: share of right answers and mean log probability of the right ones.

    Both stand for all inputs, and as LEVELS over the classes.
    """
    log_p = logits.log_softmax(-1).clamp(min=_LEAST_LOG)
    likelihood = log_p.gather(-1, labels.expand(len(logits), -1)[..., None]).squeeze(-1)
    right = (logits.argmax(-1) == labels).to(logits.dtype)
    of_classes = torch.nn.functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    of_classes = of_classes / of_classes.sum(0).clamp(min=1)
    levels = torch.tensor(LEVELS, dtype=logits.dtype, device=logits.device)
    quantiles = [torch.quantile(each @ of_classes, levels, dim=1).T for each in (right, likelihood)]
    return torch.cat([right.mean(1, keepdim=True), likelihood.mean(1, keepdim=True), *quantiles], dim=1)
