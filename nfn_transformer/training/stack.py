"""Models of one shape that are trained at once, with their parameters side by side, so that one product serves all."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nfn_transformer.models.predictor import Features, Predictor

if TYPE_CHECKING:
    from nfn_transformer.training.run import Run


class FeaturesToOutputs(nn.Module):
    """A predictor whose call maps features to outputs."""

    def __init__(self, model: Predictor):
        super().__init__()
        self.model = model

    def forward(self, features: Features) -> Tensor:
        """Return the outputs of features."""
        return self.model.from_features(features)


class StackedModels:
    """m models as one, from features [m, b, ...] to outputs [m, b, ...].

    Each model's own parameters and buffers become views of the stacked ones, so that it can still be used, saved and
    loaded by itself.
    """

    def __init__(self, models: Sequence[Predictor]):
        own = [dict(model.named_parameters()) for model in models]
        self._stacked = {
            name: nn.Parameter(torch.stack([parameters[name].detach() for parameters in own])) for name in own[0]
        }
        for index, parameters in enumerate(own):
            for name, parameter in parameters.items():
                parameter.data = self._stacked[name].data[index]
        buffers = [dict(model.named_buffers()) for model in models]
        self._buffers = {name: torch.stack([of_model[name] for of_model in buffers]) for name in buffers[0]}
        for index, of_model in enumerate(buffers):
            for name, buffer in of_model.items():
                buffer.data = self._buffers[name][index]
        self._one = FeaturesToOutputs(models[0])

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the models' parameters, stacked: [m, ...] each."""
        return iter(self._stacked.values())

    def __call__(self, features: Features) -> Tensor:
        """Return the outputs."""

        def one(named: dict[str, Tensor], *tensors: Tensor) -> Tensor:
            rest = iter(tensors)
            return functional_call(self._one, named, (features.map(lambda _: next(rest)),))

        stacked = {f"model.{name}": tensor for name, tensor in (*self._stacked.items(), *self._buffers.items())}
        return vmap(one)(stacked, *features.tensors())


def gather_state(optimizer: torch.optim.Optimizer, models: StackedModels, runs: Sequence["Run"]) -> None:
    """Give the stacked models' optimizer the states of the runs' own, which have made equally many steps.

    All rules of `step.build_optimizer` treat every number by itself, so each model moves as it would by its own.
    """
    own = (run.model.parameters() for run in runs)
    for stacked, *parameters in zip(models.parameters(), *own, strict=True):
        states = [run.optimizer.state[parameter] for run, parameter in zip(runs, parameters, strict=True)]
        if all(states):
            optimizer.state[stacked] = {
                # The number of steps is one number for all.
                name: torch.stack([state[name] for state in states])
                if first.ndim == parameters[0].ndim
                else first.clone()
                for name, first in states[0].items()
            }


def scatter_state(optimizer: torch.optim.Optimizer, models: StackedModels, runs: Sequence["Run"]) -> None:
    """Give each run's own optimizer its part of the stacked models' state."""
    own = (run.model.parameters() for run in runs)
    for stacked, *parameters in zip(models.parameters(), *own, strict=True):
        state = optimizer.state[stacked]
        for index, (run, parameter) in enumerate(zip(runs, parameters, strict=True)):
            run.optimizer.state[parameter] = {
                name: (tensor[index] if tensor.ndim == stacked.ndim else tensor).clone()
                for name, tensor in state.items()
            }
