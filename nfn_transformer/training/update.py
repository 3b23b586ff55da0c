"""One batch's update of one run's model, or of several runs' models at once."""

from collections.abc import Sequence

from torch import Tensor

from nfn_transformer.models.predictor import Features
from nfn_transformer.training.distributed import Distributed
from nfn_transformer.training.optimizer import build_optimizer, step_of
from nfn_transformer.training.stacked_models import StackedModels, StackedOptimizer
from nfn_transformer.training.step import build_step
from nfn_transformer.training.trainer import Trainer


class Update:
    """Gradients and the optimizer's step of trainers with one configuration and equally many finished epochs.

    Raises:
        UserError: the configuration wants what this machine cannot do.
    """

    def __init__(self, trainers: Sequence[Trainer], processes: Distributed):
        config, models = trainers[0].config, [trainer.model for trainer in trainers]
        self._stacked: StackedOptimizer | None = None
        if len(trainers) == 1:
            self._losses_and_gradients = build_step(models[0], config, processes)
            self._step = step_of(trainers[0].optimizer)
            return
        stack = StackedModels(models)
        self._losses_and_gradients = build_step(stack, config, processes)
        self._stacked = StackedOptimizer(
            stack,
            models,
            [trainer.optimizer for trainer in trainers],
            lambda parameters: build_optimizer(config.optimizer, parameters, config.lr, config.wd),
        )
        self._step = self._stacked.step

    def begin_epoch(self) -> None:
        """After each trainer has set its learning rate."""
        if self._stacked is not None:
            self._stacked.begin_epoch()

    def step(self, features: Features, labels: Tensor, batch: int) -> Tensor:
        """Update the models by one batch, and return their mean losses before it; see `training_step.Step`."""
        losses = self._losses_and_gradients(features, labels, batch)
        self._step()
        return losses

    def end_epoch(self) -> None:
        """Before anything of a trainer is written."""
        if self._stacked is not None:
            self._stacked.end_epoch()
