"""Models of one shape that are trained at once, with their parameters side by side, so that one product serves all."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nfn_transformer.models.predictor import Features, Predictor
from nfn_transformer.training.optimizer import step_of


class OfFeatures(nn.Module):
    """A predictor whose call maps features to logits."""

    def __init__(self, model: Predictor):
        super().__init__()
        self.model = model

    def forward(self, features: Features) -> Tensor:
        return self.model.from_features(features)


class StackedModels:
    """m models as one, from features [m, b, ...] to logits [m, b].

    Each model's own parameters and buffers become views of the stacked ones, so that it can still be used, saved and
    loaded by itself.
    """

    def __init__(self, models: Sequence[Predictor]):
        own = [dict(model.named_parameters()) for model in models]
        self._stacked = {
            name: nn.Parameter(torch.stack([parameters[name].detach() for parameters in own])) for name in own[0]
        }
        for place, parameters in enumerate(own):
            for name, parameter in parameters.items():
                parameter.data = self._stacked[name].data[place]
        buffers = [dict(model.named_buffers()) for model in models]
        self._buffers = {name: torch.stack([own[name] for own in buffers]) for name in buffers[0]}
        for place, own in enumerate(buffers):
            for name, buffer in own.items():
                buffer.data = self._buffers[name][place]
        self._one = OfFeatures(models[0])

    def parameters(self) -> Iterator[nn.Parameter]:
        """The models' parameters, stacked: [m, ...] each."""
        return iter(self._stacked.values())

    def __call__(self, features: Features) -> Tensor:
        """The logits."""

        def one(own_tensors: dict[str, Tensor], *tensors: Tensor) -> Tensor:
            own = iter(tensors)
            return functional_call(self._one, own_tensors, (features.map(lambda _: next(own)),))

        named = {f"model.{name}": stacked for name, stacked in (*self._stacked.items(), *self._buffers.items())}
        return vmap(one)(named, *features.tensors())


class StackedOptimizer:
    """One optimizer for the parameters of stacked models, in place of each model's own.

    All rules of `optimization` treat every number by itself, so each model moves as it would by its own.

    Args:
        stack: the models' parameters.
        models, optimizers: of each run, which have made equally many steps.
        build: makes an optimizer of their kind from parameters.
    """

    def __init__(
        self,
        stack: StackedModels,
        models: Sequence[Predictor],
        optimizers: Sequence[torch.optim.Optimizer],
        build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    ):
        self._stacked = list(stack.parameters())
        self._own = [list(model.parameters()) for model in models]
        self._optimizers = optimizers
        self._optimizer = build(self._stacked)
        for stacked, *own in zip(self._stacked, *self._own, strict=True):
            states = [optimizer.state[parameter] for optimizer, parameter in zip(optimizers, own, strict=True)]
            if all(states):
                self._optimizer.state[stacked] = {
                    # The number of steps is one number for all.
                    name: torch.stack([state[name] for state in states]) if first.ndim == own[0].ndim else first.clone()
                    for name, first in states[0].items()
                }
        self._step = step_of(self._optimizer)

    def begin_epoch(self) -> None:
        """Take over the learning rate."""
        for group, own in zip(self._optimizer.param_groups, self._optimizers[0].param_groups, strict=True):
            group["lr"] = own["lr"]

    def step(self) -> None:
        """Move all models along their gradients."""
        self._step()

    def end_epoch(self) -> None:
        """Give each run's own optimizer its part of the state."""
        for stacked, *own in zip(self._stacked, *self._own, strict=True):
            state = self._optimizer.state[stacked]
            for place, (optimizer, parameter) in enumerate(zip(self._optimizers, own, strict=True)):
                optimizer.state[parameter] = {
                    name: (tensor[place] if tensor.ndim == stacked.ndim else tensor).clone()
                    for name, tensor in state.items()
                }
