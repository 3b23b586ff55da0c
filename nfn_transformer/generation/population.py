"""Training of n networks at once: stacked weights, one forward and backward pass for all of them.

The loss is the sum of the networks' mean cross entropies. So neither gradients nor NaN pass from network to network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nfn_transformer.generation.batches import PopulationBatches, run_generators
from nfn_transformer.generation.dropout import PopulationDropout
from nfn_transformer.generation.hyperparameters import ZooRun
from nfn_transformer.generation.initialization import POSITION_KEY, initial_state
from nfn_transformer.generation.optimizers import PopulationOptimizer
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.snapshots import Snapshot, SnapshotRecorder, State
from nfn_transformer.generation.training_plan import TrainingPlan, lr_factor
from nfn_transformer.weights.state_dicts import (
    flatten_state_dict,
    row_length,
    state_dict_shapes,
    unflatten_rows,
    weights_from_state_dict,
)


@dataclass(frozen=True)
class TrainedPopulation:
    """n trained networks."""

    snapshots: dict[str, Snapshot]
    """Snapshots by name."""
    diverged: Tensor
    """Epoch [n] in which each network diverged; 0: it did not."""


class Population:
    """n networks of one spec in training; hyperparameters, samples and lengths may differ.

    The networks take each step together, and leave one by one, after the last epoch of each.
    A network whose gradient is not finite is not moved any more.
    """

    def __init__(self, plan: TrainingPlan, runs: Sequence[ZooRun], data: TaskData):
        """Initialize the networks.

        Args:
            plan: of the training.
            runs: n runs; those with the same optimizer are adjacent.
            data: on the device to train on.
        """
        self._plan, self._data, self._runs = plan, data, runs
        self._device = data.train.labels.device
        self._shapes = {key: shape for key, shape in state_dict_shapes(plan.spec).items() if key != POSITION_KEY}
        settings, numbers = [run.settings for run in runs], [run.number for run in runs]
        rows = torch.empty(len(runs), row_length(self._shapes))
        for row, setting, generator in zip(rows, settings, run_generators(plan.seed, numbers, "weights"), strict=True):
            state = initial_state(plan.spec, setting.w_init_std, generator)
            flatten_state_dict(state, self._shapes, row)
        self._constants = {key: state[key].to(self._device, data.dtype) for key in state.keys() - self._shapes.keys()}
        self._rows = rows.to(self._device, data.dtype).requires_grad_()  # [n, P]
        lr, l2_regularize = (
            torch.tensor(values).to(self._rows)
            for values in ([s.lr for s in settings], [s.l2_regularize for s in settings])
        )
        self._optimizer = PopulationOptimizer([s.optimizer for s in settings], self._rows, lr, l2_regularize)
        self._dropout = PopulationDropout([s.dropout for s in settings], plan.seed, numbers, self._device)
        fractions = [s.train_fraction for s in settings]
        self._batches = PopulationBatches(data.train, fractions, plan.batch_size, plan.crop_padding, plan.seed, numbers)
        self._recorder = SnapshotRecorder(plan, data, len(runs), self._shapes, self._constants)
        self._step = 0
        self._in_training = torch.arange(len(runs))  # indices of the networks that are left
        self._epochs = torch.tensor([run.epochs for run in runs])
        self._last_epochs = torch.tensor([plan.last_epoch(run.epochs) for run in runs])
        self._lengths = (self._epochs * self._batches.steps).to(self._device)
        self._steps = self._batches.steps.to(self._device)
        self._diverged = torch.zeros(len(runs), dtype=torch.int64, device=self._device)
        self._diverged_of_all = torch.zeros(len(runs), dtype=torch.int64)

    @property
    def in_training(self) -> list[int]:
        """Indices, among the n, of the networks that are still in training."""
        return self._in_training.tolist()

    def state(self) -> State:
        """Return stacked state dicts of the m networks in training, views of their parameters: key -> [m, *shape]."""
        constants = {key: tensor.expand(len(self._rows), *tensor.shape) for key, tensor in self._constants.items()}
        return {**constants, **unflatten_rows(self._rows, self._shapes)}

    def trained(self) -> TrainedPopulation:
        """Return the results of all n networks."""
        self._diverged_of_all[self._in_training] = self._diverged.cpu()
        return TrainedPopulation(self._recorder.snapshots(), self._diverged_of_all)

    def step(self) -> list[int]:
        """Train every network on one batch; return the indices of those whose epoch ended."""
        gradient = self._gradient(*self._batches.batch(self._step))
        self._note_divergence(gradient)
        self._optimizer.step(gradient, lr_factor(self._step, self._lengths), self._diverged == 0)
        self._step += 1
        ended = torch.nonzero(self._step % self._batches.steps == 0).flatten()
        if not len(ended):
            return []
        indices = self._in_training[ended].tolist()
        self._end_epochs(ended)
        return indices

    def _gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        weights = weights_from_state_dict(self.state(), self._plan.spec)
        logits = self._data.logits(inputs, weights, self._dropout)  # [n, batch, classes]
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return torch.autograd.grad(total / labels.shape[1], self._rows)[0]

    def _note_divergence(self, gradient: Tensor) -> None:
        """Note the epoch of networks whose gradient [m, P] is not finite; these are not moved any more."""
        broken = ~gradient.detach().flatten(1).sum(1).isfinite() & (self._diverged == 0)
        self._diverged = torch.where(broken, self._step // self._steps + 1, self._diverged)

    def _end_epochs(self, ended: Tensor) -> None:
        """Record the due snapshots of the networks of these rows, and remove networks whose training is done."""
        epochs = self._step // self._batches.steps[ended]
        names = [
            self._plan.due(epoch, length)
            for epoch, length in zip(epochs.tolist(), self._epochs[ended].tolist(), strict=True)
        ]
        due = [position for position, due_names in enumerate(names) if due_names]
        if due:
            chosen = ended[due].to(self._device)
            rows = self._rows.detach()[chosen]
            broken = ~rows.isfinite().all(1) & (self._diverged[chosen] == 0)
            self._diverged[chosen] = torch.where(broken, epochs[due].to(self._device), self._diverged[chosen])
            indices, sound = self._in_training[ended[due]].tolist(), self._diverged[chosen] == 0
            self._recorder.record(indices, [names[position] for position in due], rows, sound)
        done = ended[epochs == self._last_epochs[ended]]
        if len(done):
            left = torch.ones(len(self._in_training), dtype=torch.bool)
            left[done] = False
            self._select(torch.nonzero(left).flatten())

    def _select(self, rows: Tensor) -> None:
        """Go on with the networks of these rows alone."""
        self._diverged_of_all[self._in_training] = self._diverged.cpu()
        on_device = rows.to(self._device)
        self._rows = self._rows.detach()[on_device].requires_grad_()
        self._optimizer.select(rows.tolist(), self._rows)
        self._dropout.select(on_device)
        self._batches.select(rows)
        self._diverged, self._lengths, self._steps = (
            tensor[on_device] for tensor in (self._diverged, self._lengths, self._steps)
        )
        self._in_training, self._epochs, self._last_epochs = (
            tensor[rows] for tensor in (self._in_training, self._epochs, self._last_epochs)
        )


def train_population(
    plan: TrainingPlan,
    runs: Sequence[ZooRun],
    data: TaskData,
    after_epoch: Callable[[Sequence[ZooRun]], object] = lambda runs: None,
) -> TrainedPopulation:
    """Train runs together, each up to its last snapshot.

    Args:
        plan: of the training.
        runs: those with the same optimizer are adjacent.
        data: on the device to train on.
        after_epoch: called, for progress, with the runs that have ended an epoch.
    """
    population = Population(plan, runs, data)
    while population.in_training:
        if ended := population.step():
            after_epoch([runs[index] for index in ended])
    return population.trained()
