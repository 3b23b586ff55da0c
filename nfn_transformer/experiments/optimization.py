"""Optimizers by name, and the published schedule of the learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn

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
