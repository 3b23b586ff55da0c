"""One batch's loss and gradients: of one model or of several at once, in one process or in many, compiled or not.

Every way gives the same numbers up to rounding; `amp` alone rounds to bfloat16.
"""

import shutil
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from nfn_transformer.errors import UserError
from nfn_transformer.experiments.config import TrainingConfig
from nfn_transformer.experiments.processes import Processes
from nfn_transformer.models.predictor import AccuracyPredictor, Features

Forward = Callable[[Features], Tensor]


class Step(Protocol):
    """Leaves in each model's parameters the gradients of its mean loss over a batch."""

    def __call__(self, features: Features, labels: Tensor, batch: int) -> Tensor:
        """From a batch's features and labels [b], or [m, b] for m models, to the mean losses, [] or [m], detached.

        `batch` is the size of the whole batch, of which other processes may have parts.
        """


def build_step(models: Sequence[AccuracyPredictor], config: TrainingConfig, processes: Processes) -> Step:
    """The step that a configuration asks for; several models are stacked, see `StackedModels`.

    Raises:
        UserError: the configuration wants what this machine cannot do.
    """
    if len(models) > 1:
        stack = StackedModels(models)
        return stack.hand_out(_prepared(stack, list(stack.parameters.values()), config, processes))
    model = models[0]
    forward = model.from_features if processes.count == 1 else DistributedDataParallel(_OfFeatures(model))
    return _prepared(forward, list(model.parameters()), config, processes)


def _prepared(forward: Forward, parameters: list[nn.Parameter], config: TrainingConfig, processes: Processes) -> Step:
    """A step in the way that the configuration asks for; what is prepared fits whole batches only."""
    device, size = parameters[0].device, len(processes.share(torch.arange(config.batch_size)))
    plain = whole = Losses(forward, parameters, config.amp, processes.count)
    if config.compile:
        _check_compiler(device)
        whole = Losses(torch.compile(forward, dynamic=False), parameters, config.amp, processes.count)
    if config.cuda_graphs:
        if device.type != "cuda" or processes.count > 1:
            place = f"the device is {device}" if device.type != "cuda" else "torchrun started several processes"
            raise UserError(f"--cuda_graphs True: {place}; CUDA graphs need one process with a GPU")
        whole = GraphedLosses(whole)

    def step(features: Features, labels: Tensor, batch: int) -> Tensor:
        return (whole if labels.shape[-1] == size else plain)(features, labels, batch)

    return step


class Losses:
    """The step without any preparation.

    Args:
        forward: from features to logits, [b] or [m, b].
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
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=self.amp):
            logits = self.forward(features)
        logits = logits.float() if self.amp else logits
        sums = binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").sum(-1)
        # Averaging over processes divides once more, by their number.
        (sums.sum() * (self.processes / batch)).backward()
        return sums.detach() / batch


class StackedModels:
    """Models of one shape with their parameters side by side, so that one product serves all.

    Each model's own parameters become views of the stack, so that it can still be used, saved and loaded by itself.
    """

    def __init__(self, models: Sequence[AccuracyPredictor]):
        self.models = list(models)
        self.parameters = {
            name: nn.Parameter(torch.stack([dict(model.named_parameters())[name].detach() for model in models]))
            for name, _ in models[0].named_parameters()
        }
        with torch.no_grad():
            for place, model in enumerate(models):
                for name, parameter in model.named_parameters():
                    parameter.data = self.parameters[name].data[place]
        self._one = _OfFeatures(models[0])

    def __call__(self, features: Features) -> Tensor:
        """Logits [m, b] from features [m, b, ...]."""
        tensors = features.tensors()

        def one(parameters: dict[str, Tensor], *tensors: Tensor) -> Tensor:
            own = iter(tensors)
            return functional_call(self._one, parameters, (features.map(lambda _: next(own)),))

        return vmap(one)({f"model.{name}": stacked for name, stacked in self.parameters.items()}, *tensors)

    def hand_out(self, step: Step) -> Step:
        """The step, after which each model's parameters have their part of the stack's gradients."""

        def handed_out(features: Features, labels: Tensor, batch: int) -> Tensor:
            losses = step(features, labels, batch)
            for place, model in enumerate(self.models):
                for name, parameter in model.named_parameters():
                    parameter.grad = self.parameters[name].grad[place]
            return losses

        return handed_out


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
        with torch.cuda.graph(self._graph):
            self._result = self._losses(self._features, self._labels, batch)
        self._gradients = [parameter.grad for parameter in self._losses.parameters]


class _OfFeatures(nn.Module):
    """A predictor whose call maps features to logits."""

    def __init__(self, model: AccuracyPredictor):
        super().__init__()
        self.model = model

    def forward(self, features: Features) -> Tensor:
        return self.model.from_features(features)


def _check_compiler(device: torch.device) -> None:
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise UserError("--compile True: on the CPU it needs a C++ compiler (g++ or clang++), which is not here")
