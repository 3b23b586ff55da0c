"""One training step: a batch's losses, their gradients, and the optimizer's update; and the learning rate's schedule.

A step trains one model or several at once, in one process or in many. The step may be compiled, or recorded as a CUDA
graph. All variants give the same numbers up to rounding; `amp` alone rounds to bfloat16.
"""

import ctypes
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.adam import adam

from nfn_transformer.models.predictor import Features
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.cuda_graph import GraphedBackwardPass
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.training.stack import FeaturesToOutputs, StackedModels, gather_state, scatter_state
from nfn_transformer.training.task import Task

if TYPE_CHECKING:
    from nfn_transformer.training.run import Run

FINAL_LEARNING_RATE = 1e-5

NETWORKS_AT_ONCE = 128
"""On a CPU larger batches are computed in pieces of so many: they stay in its caches and need less memory."""

# Parameters of mallopt in <malloc.h>, and the most that the threshold may be.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 << 20


class Step:
    """The training step of one run, or of several runs of one configuration and equally many finished epochs at once.

    What is prepared, compiled or recorded, fits whole batches only.
    """

    def __init__(self, runs: Sequence["Run"], distributed: Distributed = SINGLE_PROCESS):
        self.runs, config = list(runs), runs[0].config.training
        if len(self.runs) == 1:
            model, self._stack = self.runs[0].model, None
            forward = model.from_features
            if distributed.count > 1:
                forward = DistributedDataParallel(FeaturesToOutputs(model))
            parameters, self._optimizer = list(model.parameters()), self.runs[0].optimizer
        else:
            forward = self._stack = StackedModels([run.model for run in self.runs])
            parameters = list(self._stack.parameters())
            self._optimizer = build_optimizer(config, parameters)
            gather_state(self._optimizer, self._stack, self.runs)
        self._update = OptimizerStep(self._optimizer)
        tasks = [run.task for run in self.runs]
        task = tasks[0] if all(each == tasks[0] for each in tasks) else TasksOfSeveral(tasks)
        self._plain = whole = BackwardPass(forward, task, parameters, config.amp, distributed.count)
        if config.compile:
            # TensorFloat32 would round more than the other ways do.
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
            forward = torch.compile(forward, dynamic=False)
            whole = BackwardPass(forward, task, parameters, config.amp, distributed.count)
        self._whole = GraphedBackwardPass(whole) if config.cuda_graphs else whole
        self._whole_size = len(distributed.share(torch.arange(config.batch_size)))

    def __call__(self, features: Features, labels: Tensor, size: int) -> Tensor:
        """Update the models by a batch; return their mean losses before it, [] or [m], detached.

        Args:
            features: [b, ...], or [m, b, ...] for m runs.
            labels: [b, ...] or [m, b, ...].
            size: of the whole batch, of which other processes may have parts.
        """
        networks = labels.shape[labels.ndim - 1 - self._plain.task.label_dims]
        backward = self._whole if networks == self._whole_size else self._plain
        losses = backward(features, labels, size)
        for group, of_run in zip(self._optimizer.param_groups, self.runs[0].optimizer.param_groups, strict=True):
            group["lr"] = of_run["lr"]
        self._update()
        return losses

    def finish_epoch(self) -> None:
        """Give each of several runs its part of the optimizer's state."""
        if self._stack is not None:
            scatter_state(self._optimizer, self._stack, self.runs)


class TasksOfSeveral:
    """Tasks of several runs that differ in what their training sides tell, as scales of labels."""

    def __init__(self, tasks: Sequence[Task]):
        self.tasks, self.outputs, self.label_dims = tasks, tasks[0].outputs, tasks[0].label_dims

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the losses [m, ..., b] of outputs and labels of m runs, each by its own task."""
        parts = zip(self.tasks, outputs, labels, strict=True)
        return torch.stack([task.losses(of_run, wanted) for task, of_run, wanted in parts])


@dataclass(frozen=True)
class BackwardPass:
    """Leaves in the parameters the gradients of each model's mean loss over a batch, and returns these losses."""

    forward: Callable[[Features], Tensor]
    """to outputs [b] or [m, b]; of an ensemble's members, whose losses are averaged, [members, b] or [m, members, b]"""
    task: Task | TasksOfSeveral
    """whose losses of the outputs are minimised; of several outputs, these are the last dimension"""
    parameters: Sequence[nn.Parameter]
    """those that get gradients"""
    amp: bool
    """whether the forward pass may round to bfloat16"""
    processes: int
    """how many processes average their gradients afterwards"""

    def __call__(self, features: Features, labels: Tensor, size: int) -> Tensor:
        """Return mean losses [] or [m], detached; arguments as of `Step`."""
        for parameter in self.parameters:
            parameter.grad = None
        # On the CPU in pieces whose gradients add up; several processes add theirs up only once.
        shape = labels.shape[: labels.ndim - self.task.label_dims]
        pieces = math.ceil(shape.numel() / NETWORKS_AT_ONCE)
        if pieces <= 1 or labels.device.type != "cpu" or self.processes > 1:
            return self._add_gradients(features, labels, size) / size
        axis, networks = len(shape) - 1, shape[-1]
        sums, length = [], math.ceil(networks / pieces)
        for start in range(0, networks, length):
            end = min(start + length, networks)
            piece = features.map(lambda tensor, start=start, end=end: tensor.narrow(axis, start, end - start))
            sums.append(self._add_gradients(piece, labels.narrow(axis, start, end - start), size))
        return torch.stack(sums).sum(0) / size

    def _add_gradients(self, features: Features, labels: Tensor, size: int) -> Tensor:
        """Add the gradients of some of a batch's networks; return the sums of their losses, [] or [m]."""
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=self.amp):
            outputs = self.forward(features)
        outputs = outputs.float() if self.amp else outputs
        shape = outputs.shape if self.task.outputs == 1 else outputs.shape[:-1]
        dims = self.task.label_dims
        members = len(shape) > labels.ndim - dims
        targets = labels.to(outputs.dtype)
        if members:
            targets = targets.unsqueeze(-2 - dims).expand(*shape, *labels.shape[labels.ndim - dims :])
        sums = self.task.losses(outputs, targets).sum(-1)
        # Averaging over processes divides once more, by their number. Members of an ensemble learn each by itself.
        sums.backward(torch.full_like(sums, self.processes / size))
        return (sums.mean(-1) if members else sums).detach()


def build_optimizer(config: TrainingConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the configured optimizer with PyTorch's defaults; `sgd_momentum` has momentum 0.9.

    All parameters are updated by one kernel, where PyTorch has such a one.
    """
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.wd, fused=True)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=config.lr, weight_decay=config.wd, foreach=True)
    momentum = 0.9 if config.optimizer == "sgd_momentum" else 0.0
    return torch.optim.SGD(parameters, lr=config.lr, weight_decay=config.wd, momentum=momentum, fused=True)


@dataclass
class OptimizerStep:
    """An optimizer's step; Adam's without looking its tensors up each time.

    The search takes a third of the arithmetic's time on two million numbers. As long as a parameter has never had a
    gradient, it is Adam's own step. From the first call on nothing else may replace the optimizer's state.
    """

    optimizer: torch.optim.Optimizer
    """of one group of parameters; Adam without amsgrad"""
    _parameters: list[Tensor] = field(default_factory=list)
    _state: list[list[Tensor]] = field(default_factory=list)

    @torch.no_grad()
    def __call__(self) -> None:
        """Update the parameters; see `torch.optim.Optimizer.step`."""
        (group,) = self.optimizer.param_groups
        if not self._parameters:
            self.optimizer.step()  # makes the state, where there is none yet
            states, names = self.optimizer.state, ("exp_avg", "exp_avg_sq", "step")
            if type(self.optimizer) is torch.optim.Adam and all(states.get(each) for each in group["params"]):
                self._parameters = group["params"]
                self._state = [[states[parameter][name] for parameter in self._parameters] for name in names]
            return
        exp_avgs, exp_avg_sqs, steps = self._state
        beta1, beta2 = group["betas"]
        rule = {name: value for name, value in group.items() if name not in ("params", "betas")}
        gradients = cast(list[Tensor], [parameter.grad for parameter in self._parameters])
        adam(self._parameters, gradients, exp_avgs, exp_avg_sqs, [], steps, beta1=beta1, beta2=beta2, **rule)


def learning_rate(epoch: int, config: TrainingConfig) -> float:
    """Return the learning rate of an epoch, counted from 1 (arXiv 2410.04209, appendix).

    Linear from lr / warm-up to lr over the warm-up epochs, of which there are at most `epochs`. Then half a cosine that
    reaches 1e-5, or lr if that is lower, in the last epoch.
    """
    warmup = min(config.warmup_epochs, config.epochs)
    if epoch <= warmup:
        return config.lr * epoch / warmup
    final = min(FINAL_LEARNING_RATE, config.lr)
    progress = (epoch - warmup) / (config.epochs - warmup)
    return final + (config.lr - final) * (1 + math.cos(math.pi * progress)) / 2


def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory instead of handing it back to the system.

    PyTorch has no cache of its own for the CPU, and glibc maps large tensors anew in every step. At large batches,
    touching fresh pages takes a good part of a training step. With another C library than glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
