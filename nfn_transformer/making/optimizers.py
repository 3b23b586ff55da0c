"""Optimizers for n networks at once: the rules of `torch.optim`, with every network's own settings.

Parameters are one matrix [n, P], a row per network, so a step is a few operations whatever the
number of networks, and rows never mix.
"""

from collections.abc import Callable

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


class PopulationOptimizer:
    """One kind of optimizer for n networks, each with its own learning rate and weight decay."""

    def __init__(self, name: str, parameters: Tensor, lr: Tensor, l2_regularize: Tensor):
        """Args: a key of RULES; parameters [n, P], changed in place; lr and l2_regularize [n]."""
        self._rule = RULES[name]
        self._parameters = parameters
        self._lr = lr[:, None]
        self._l2_regularize = l2_regularize[:, None]
        self._state: dict[str, Tensor] = {}
        self._step = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, lr_factor: float, moving: Tensor) -> None:
        """One step along `gradient` [n, P], the gradient of each network's own loss, at `lr_factor` times the lr.

        Only networks in `moving` (bool [n]) move; the gradients of others need not be finite.
        """
        self._step += 1
        decayed = torch.addcmul(gradient, self._l2_regularize, self._parameters)
        decayed.masked_fill_(~moving[:, None], 0.0)
        direction = self._rule(decayed, self._state, self._step)
        self._parameters.sub_(direction * (self._lr * lr_factor * moving[:, None]))
