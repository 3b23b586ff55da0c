"""Optimizers for n networks at once: the rules of `torch.optim`, with settings for each network.

Parameters are one matrix [n, P], a row per network. A step is a few operations for any number of networks, and rows
never mix. All networks take their first step together.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOMENTUM = 0.9
ADAM_BETAS = (0.9, 0.999)
RMSPROP_ALPHA = 0.99
EPSILON = 1e-8

Rule = Callable[[Tensor, dict[str, Tensor], int], Tensor]


def _sgd(gradient: Tensor, state: dict[str, Tensor], step: int) -> Tensor:
    return gradient


def _sgd_momentum(gradient: Tensor, state: dict[str, Tensor], step: int) -> Tensor:
    return _state(state, "velocity", gradient).mul_(MOMENTUM).add_(gradient)


def _adam(gradient: Tensor, state: dict[str, Tensor], step: int) -> Tensor:
    mean = _state(state, "mean", gradient).lerp_(gradient, 1 - ADAM_BETAS[0])
    square = _state(state, "square", gradient).mul_(ADAM_BETAS[1]).addcmul_(gradient, gradient, value=1 - ADAM_BETAS[1])
    scale = (square / (1 - ADAM_BETAS[1] ** step)).sqrt_().add_(EPSILON)
    return mean / (1 - ADAM_BETAS[0] ** step) / scale


def _rmsprop(gradient: Tensor, state: dict[str, Tensor], step: int) -> Tensor:
    square = _state(state, "square", gradient).mul_(RMSPROP_ALPHA).addcmul_(gradient, gradient, value=1 - RMSPROP_ALPHA)
    return gradient / square.sqrt().add_(EPSILON)


def _state(state: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    return state.setdefault(name, torch.zeros_like(like))


RULES: dict[str, Rule] = {"sgd": _sgd, "sgd_momentum": _sgd_momentum, "adam": _adam, "rmsprop": _rmsprop}
"""Optimizer -> direction of a step, from the gradient, the state, and the number of the step, which starts at 1."""


@dataclass
class _Group:
    """Adjacent networks with the same rule."""

    name: str
    """Name of the rule."""
    rows: slice
    """Rows of the networks in the matrix of parameters."""
    state: dict[str, Tensor]
    """State of the rule, a row per network."""


class PopulationOptimizer:
    """Optimizers of n networks, with a rule, learning rate and weight decay for each.

    A step is a few operations for each group of adjacent networks with the same rule.
    """

    def __init__(self, names: Sequence[str], parameters: Tensor, lr: Tensor, l2_regularize: Tensor):
        """Group the networks by their rules.

        Args:
            names: n keys of RULES.
            parameters: [n, P], changed in place.
            lr: learning rates [n].
            l2_regularize: weight decays [n].
        """
        self._parameters = parameters
        self._lr = lr[:, None]
        self._l2_regularize = l2_regularize[:, None]
        self._groups = _groups(names)
        self._step = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, lr_factor: Tensor, moving: Tensor) -> None:
        """Take one step.

        Args:
            gradient: [n, P], of each network's loss by its parameters; finite where `moving`.
            lr_factor: [n], share of the learning rate.
            moving: bool [n]; other networks stay.
        """
        self._step += 1
        decayed = torch.addcmul(gradient, self._l2_regularize, self._parameters)
        decayed.masked_fill_(~moving[:, None], 0.0)
        length = self._lr * (lr_factor * moving).to(self._lr)[:, None]
        for group in self._groups:
            direction = RULES[group.name](decayed[group.rows], group.state, self._step)
            self._parameters[group.rows].sub_(direction * length[group.rows])

    def select(self, rows: Sequence[int], parameters: Tensor) -> None:
        """Go on with the networks of these ascending rows alone, whose parameters are `parameters` from now on."""
        self._parameters = parameters
        self._lr, self._l2_regularize = self._lr[rows], self._l2_regularize[rows]
        groups, start = [], 0
        for group in self._groups:
            members = [row - group.rows.start for row in rows if group.rows.start <= row < group.rows.stop]
            if members:
                state = {name: tensor[members] for name, tensor in group.state.items()}
                groups.append(_Group(group.name, slice(start, start + len(members)), state))
                start += len(members)
        self._groups = groups


def _groups(names: Sequence[str]) -> list[_Group]:
    groups, start = [], 0
    for name, same in itertools.groupby(names):
        stop = start + len(list(same))
        groups.append(_Group(name, slice(start, stop), {}))
        start = stop
    return groups
