"""Optimizers by name, and the published schedule of the learning rate."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

FINAL_LEARNING_RATE = 1e-5

OPTIMIZERS = ("adam", "sgd", "sgd_momentum", "rmsprop")


def build_optimizer(name: str, parameters: Iterable[nn.Parameter], lr: float, wd: float) -> torch.optim.Optimizer:
    """The optimizer of that name with PyTorch's defaults; `sgd_momentum` has momentum 0.9.

    All parameters are updated by one kernel, where PyTorch has such a one.

    Raises:
        ValueError: the name is none of OPTIMIZERS.
    """
    match name:
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=wd, fused=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, weight_decay=wd, fused=True)
        case "sgd_momentum":
            return torch.optim.SGD(parameters, lr=lr, weight_decay=wd, momentum=0.9, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=lr, weight_decay=wd, foreach=True)
    raise ValueError(f"optimizer '{name}', expected one of {', '.join(OPTIMIZERS)}")


def step_of(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """What an optimizer's `step` does, faster where it is Adam.

    From the first call on nothing else may replace the optimizer's state.
    """
    return AdamSteps(optimizer) if type(optimizer) is torch.optim.Adam else optimizer.step


class AdamSteps:
    """Adam's step without looking its tensors up each time: a third of the arithmetic's time on two million numbers.

    As long as a parameter has never had a gradient, it is the optimizer's own step.

    Args:
        optimizer: of one group of parameters, without amsgrad; see `step_of`.
    """

    def __init__(self, optimizer: torch.optim.Adam):
        self._optimizer = optimizer
        self._parameters: list[Tensor] = []
        self._state: list[list[Tensor]] = []

    @torch.no_grad()
    def __call__(self) -> None:
        """See `torch.optim.Adam.step`."""
        (group,) = self._optimizer.param_groups
        if not self._parameters:
            self._optimizer.step()  # makes the state, where there is none yet
            if all(self._optimizer.state.get(parameter) for parameter in group["params"]):
                self._look_up(group["params"])
            return
        exp_avgs, exp_avg_sqs, steps = self._state
        beta1, beta2 = group["betas"]
        rule = {name: value for name, value in group.items() if name not in ("params", "betas")}
        gradients = [parameter.grad for parameter in self._parameters]
        adam(self._parameters, gradients, exp_avgs, exp_avg_sqs, [], steps, beta1=beta1, beta2=beta2, **rule)

    def _look_up(self, parameters: list[Tensor]) -> None:
        states, names = self._optimizer.state, ("exp_avg", "exp_avg_sq", "step")
        self._parameters = parameters
        self._state = [[states[parameter][name] for parameter in parameters] for name in names]


def learning_rate(epoch: int, lr: float, epochs: int, warmup_epochs: int) -> float:
    """The learning rate of an epoch, counted from 1.

    Linear from lr / warm-up to lr over the warm-up epochs (cut to `epochs` where there are fewer),
    then half a cosine that reaches 1e-5 (lr, where that is lower) in the last epoch.
    """
    warmup = min(warmup_epochs, epochs)
    if epoch <= warmup:
        return lr * epoch / warmup
    final = min(FINAL_LEARNING_RATE, lr)
    progress = (epoch - warmup) / (epochs - warmup)
    return final + (lr - final) * (1 + math.cos(math.pi * progress)) / 2
