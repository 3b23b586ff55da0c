"""Initialisation of a layer's terms, with fan-in and fan-out computed from what each term sums over.

A term is a map Phi from d input to e output channels: fan_in = d x the input entries that it sums
over, heads included; fan_out = e x the entries of Phi's own output index.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

INIT_TYPES = ("pytorch_default", "kaiming_normal", "xavier_normal", "xavier_uniform", "uniform")


@dataclass(frozen=True)
class Fan:
    """The two fans of one term, and whether the published initialisation squares its scale.

    The published code squares the standard deviation or the bound of most polynomial terms, which
    keeps products of weights small; `squared=False` marks the terms that it leaves as they are.
    """

    fan_in: int
    fan_out: int
    squared: bool = False


def initialize_term(term: Tensor, fan: Fan, init_type: str, generator: torch.Generator | None = None) -> None:
    """Fill one term in place.

    Args:
        term: a parameter, or the part of one that holds the term.
        fan: the term's fans.
        init_type: `xavier_normal`: normal, std (2 / (fan_in + fan_out))^(1/2); `xavier_uniform`: uniform,
            bound (6 / (fan_in + fan_out))^(1/2); `kaiming_normal`: normal, std (2 / fan_in)^(1/2);
            `pytorch_default`: uniform, bound fan_in^(-1/2); `uniform`: uniform, bound 1, never squared.
        generator: source of the random numbers; PyTorch's own where None.

    Raises:
        ValueError: `init_type` is none of INIT_TYPES.
    """
    scale = _scale(fan, init_type)
    if fan.squared and init_type != "uniform":
        scale = scale**2
    with torch.no_grad():
        if init_type.endswith("normal"):
            term.normal_(0, scale, generator=generator)
        else:
            term.uniform_(-scale, scale, generator=generator)


def _scale(fan: Fan, init_type: str) -> float:
    match init_type:
        case "xavier_normal":
            return (2 / (fan.fan_in + fan.fan_out)) ** 0.5
        case "xavier_uniform":
            return (6 / (fan.fan_in + fan.fan_out)) ** 0.5
        case "kaiming_normal":
            return (2 / fan.fan_in) ** 0.5
        case "pytorch_default":
            return fan.fan_in**-0.5
        case "uniform":
            return 1.0
    raise ValueError(f"init_type '{init_type}', expected one of {', '.join(INIT_TYPES)}")
