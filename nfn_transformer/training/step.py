"""One batch's loss and gradients: of one model or of several at once, in one process or in many, compiled or not.

Every way gives the same numbers up to rounding; `amp` alone rounds to bfloat16.
"""

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from nfn_transformer.errors import UserError
from nfn_transformer.models.predictor import Features, Predictor
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.training.stacked_models import OfFeatures, StackedModels

Forward = Callable[[Features], Tensor]

NETWORKS_AT_ONCE = 128
"""On a CPU larger batches are computed in pieces of so many: they stay in its caches and need less memory."""


class Step(Protocol):
    """Leaves in each model's parameters the gradients of its mean loss over a batch."""

    def __call__(self, features: Features, labels: Tensor, batch: int) -> Tensor:
        """From a batch's features and labels [b], or [m, b] for m models, to the mean losses, [] or [m], detached.

        `batch` is the size of the whole batch, of which other processes may have parts.
        """


def build_step(
    model: Predictor | StackedModels, config: TrainingConfig, processes: Distributed = SINGLE_PROCESS
) -> Step:
    """The step that a configuration asks for; what is prepared, compiled or recorded, fits whole batches only.

    Raises:
        UserError: the configuration wants what this machine cannot do.
    """
    forward = model if isinstance(model, StackedModels) else OfFeatures(model)
    parameters = list(model.parameters())
    device, size = parameters[0].device, len(processes.share(torch.arange(config.batch_size)))
    if processes.count > 1:
        forward = DistributedDataParallel(forward)
    plain = whole = Losses(forward, parameters, config.amp, processes.count)
    check_preparations(config, device)
    if config.compile:
        whole = Losses(torch.compile(forward, dynamic=False), parameters, config.amp, processes.count)
    if config.cuda_graphs:
        if processes.count > 1:
            raise UserError("--cuda_graphs True: torchrun started several processes; CUDA graphs need one alone")
        whole = GraphedLosses(whole)

    def step(features: Features, labels: Tensor, batch: int) -> Tensor:
        return (whole if labels.shape[-1] == size else plain)(features, labels, batch)

    return step


class Losses:
    """The step without any preparation.

    Args:
        forward: from features to logits, [b] or [m, b], or those of an ensemble's members, [members, b] or
            [m, members, b], whose mean losses are averaged.
        parameters: whose gradients are wanted.
        amp: whether the forward pass may round to bfloat16.
        processes: over how many processes the gradients are averaged afterwards.
    """

    def __init__(self, forward: Forward, parameters: Sequence[nn.Parameter], amp: bool, processes: int):
        self.forward, self.parameters, self.amp, self.processes = forward, parameters, amp, processes

    def __call__(self, features: Features, labels: Tensor, batch: int) -> Tensor:
        """See `Step`."""
        for parameter in self.parameters:
            parameter.grad = None
        sums = [self._backward(*piece, batch) for piece in self._pieces(features, labels)]
        return sums[0] / batch if len(sums) == 1 else torch.stack(sums).sum(0) / batch

    def _pieces(self, features: Features, labels: Tensor) -> Iterator[tuple[Features, Tensor]]:
        """The batch, on the CPU in pieces whose gradients are added up; several processes add theirs up only once."""
        count = math.ceil(labels.numel() / NETWORKS_AT_ONCE)
        if count <= 1 or labels.device.type != "cpu" or self.processes > 1:
            yield features, labels
            return
        along, size = labels.ndim - 1, math.ceil(labels.shape[-1] / count)
        for start in range(0, labels.shape[-1], size):
            length = min(size, labels.shape[-1] - start)

            def piece(tensor: Tensor, start: int = start, length: int = length) -> Tensor:
                return tensor.narrow(along, start, length)

            yield features.map(piece), piece(labels)

    def _backward(self, features: Features, labels: Tensor, batch: int) -> Tensor:
        """Add the gradients of some of a batch's networks to those that are there; the sums of their losses."""
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=self.amp):
            logits = self.forward(features)
        logits = logits.float() if self.amp else logits
        members = logits.ndim > labels.ndim
        targets = labels.to(logits.dtype)
        targets = targets.unsqueeze(-2).expand_as(logits) if members else targets
        sums = binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
        # Averaging over processes divides once more, by their number. Members of an ensemble learn each by itself.
        sums.backward(torch.full_like(sums, self.processes / batch))
        return (sums.mean(-1) if members else sums).detach()


class GraphedLosses:
    """Losses of batches of one size: the kernels are recorded once as a CUDA graph and from then on launched together.

    Small batches leave a GPU waiting for launches.
    """

    _WARM_UP = 3

    def __init__(self, losses: Losses):
        self._losses = losses
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, features: Features, labels: Tensor, batch: int) -> Tensor:
        """See `Step`."""
        if self._graph is None:
            with torch.cuda.device(labels.device):
                self._record(features, labels, batch)
        for fixed, tensor in zip(self._features.tensors(), features.tensors(), strict=True):
            fixed.copy_(tensor)
        self._labels.copy_(labels)
        self._graph.replay()
        # A batch of another size has left gradients of its own.
        for parameter, gradient in zip(self._losses.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._result.clone()

    def _record(self, features: Features, labels: Tensor, batch: int) -> None:
        self._features, self._labels = features.map(torch.clone), labels.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self._WARM_UP):
                self._losses(self._features, self._labels, batch)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: threads that read ahead pin memory at the same time.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = self._losses(self._features, self._labels, batch)
        self._gradients = [parameter.grad for parameter in self._losses.parameters]


def check_preparations(config: TrainingConfig, device: torch.device) -> None:
    """Raise UserError where the configuration wants a step prepared that this machine cannot prepare."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # as PyTorch looks for it
    if config.compile and device.type == "cpu" and shutil.which(compiler) is None:
        raise UserError(
            f"--compile True: on the CPU it needs a C++ compiler, and {compiler} is not here (CXX names one)"
        )
    if config.cuda_graphs and device.type != "cuda":
        raise UserError(f"--cuda_graphs True: the device is {device}; CUDA graphs need a GPU")
