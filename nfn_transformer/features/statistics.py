"""Statistics of each weight matrix and bias (Unterthiner et al. 2020, arXiv 2002.11448, section 3)."""

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.weights.containers import Part, trained_tensors

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
STATISTICS_PER_TENSOR = 2 + len(QUANTILES)


def weight_statistics(parts: tuple[Part, ...]) -> Float[Tensor, "b numbers"]:
    """Return mean, variance (of the population) and the 0/25/50/75/100 % quantiles of every tensor, 7 numbers each.

    All heads of a projection are one matrix, as in the checkpoint.
    """
    return torch.cat([_statistics(tensor.flatten(1)) for part in parts for tensor in trained_tensors(part)], dim=1)


def _statistics(numbers: Float[Tensor, "b n"]) -> Float[Tensor, "b 7"]:
    levels = torch.tensor(QUANTILES, dtype=numbers.dtype, device=numbers.device)
    moments = torch.stack([numbers.mean(1), numbers.var(1, correction=0)], dim=1)
    return torch.cat([moments, torch.quantile(numbers, levels, dim=1).T], dim=1)
