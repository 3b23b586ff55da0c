"""Optimizers for n networks at once: the rules of `torch.optim`, with every network's own settings.

Parameters are one matrix [n, P], a row per network, so a step is a few operations whatever the
number of networks, and rows never mix. All networks take their first step together.
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
"""Name of an optimizer -> the direction of a step from the gradient, the state, and the number of the step (from 1)."""


@dataclass
class _Group:
    """Networks next to each other that have the same rule, and its state, in their order."""

    name: str
    places: slice
    state: dict[str, Tensor]


class PopulationOptimizer:
    """Optimizers of n networks, each with its own rule, learning rate and weight decay.

    A step is a few operations for each row of networks that stand next to each other and have the same rule.
    """

    def __init__(self, names: Sequence[str], parameters: Tensor, lr: Tensor, l2_regularize: Tensor):
        """Args: n keys of RULES; parameters [n, P], changed in place; lr and l2_regularize [n]."""
        self._parameters = parameters
        self._lr = lr[:, None]
        self._l2_regularize = l2_regularize[:, None]
        self._groups = _groups(names)
        self._step = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, lr_factor: Tensor, moving: Tensor) -> None:
        """One step along `gradient` [n, P], the gradient of each network's own loss, at lr_factor [n] times the lr.

        Only networks in `moving` (bool [n]) move; the gradients of others need not be finite.
        """
        self._step += 1
        decayed = torch.addcmul(gradient, self._l2_regularize, self._parameters)
        decayed.masked_fill_(~moving[:, None], 0.0)
        length = self._lr * (lr_factor * moving).to(self._lr)[:, None]
        for group in self._groups:
            direction = RULES[group.name](decayed[group.places], group.state, self._step)
            self._parameters[group.places].sub_(direction * length[group.places])

    def keep(self, places: Sequence[int], parameters: Tensor) -> None:
        """Go on with the networks at these ascending places alone, whose parameters are `parameters` from now on."""
        self._parameters = parameters
        self._lr, self._l2_regularize = self._lr[places], self._l2_regularize[places]
        kept, start = [], 0
        for group in self._groups:
            own = [place - group.places.start for place in places if group.places.start <= place < group.places.stop]
            if own:
                state = {name: tensor[own] for name, tensor in group.state.items()}
                kept.append(_Group(group.name, slice(start, start + len(own)), state))
                start += len(own)
        self._groups = kept


def _groups(names: Sequence[str]) -> list[_Group]:
    found, start = [], 0
    for name, same in itertools.groupby(names):
        stop = start + len(list(same))
        found.append(_Group(name, slice(start, stop), {}))
        start = stop
    return found
