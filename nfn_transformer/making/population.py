"""Training n networks at once: stacked weights, one forward and backward pass for all of them.

Each network's loss is its own mean cross entropy and the sum of the losses is what is
differentiated, so a network's gradient, and NaN, are its own.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nfn_transformer.making.hyperparameters import Hyperparameters
from nfn_transformer.making.optimizers import PopulationOptimizer
from nfn_transformer.making.samples import TaskData
from nfn_transformer.making.streams import (
    POSITION_KEY,
    PopulationBatches,
    PopulationDropout,
    initial_state,
    run_streams,
)
from nfn_transformer.weights.checkpoint_format import (
    flatten_state_dict,
    row_length,
    state_dict_shapes,
    unflatten_rows,
    weights_from_state_dict,
)
from nfn_transformer.weights.spec import TransformerSpec

State = dict[str, Tensor]

WARMUP_SHARE = 0.1
"""Share of the training during which the learning rate rises; then it falls along a cosine to zero."""

BEST = "best"
SNAPSHOT_LABELS = ("1", "50", "75", "100", BEST)
"""The release's names of snapshots: after the first epoch, percents of the training, and after the epoch with the
highest test accuracy (the first of them), each network's own."""

_TEST_CHUNK = 500


@dataclass(frozen=True)
class TrainingPlan:
    """How every population of a zoo is trained.

    Args:
        snapshots: labels of SNAPSHOT_LABELS; training ends at the last of them.
        half: whether snapshots are rounded to half precision.
    """

    spec: TransformerSpec
    seed: int
    epochs: int
    batch_size: int
    crop_padding: int
    snapshots: tuple[str, ...]
    half: bool

    @property
    def snapshot_epochs(self) -> dict[str, int]:
        """Label, without the best, -> the number of epochs after which the snapshot is taken, at least 1."""
        labels = [label for label in self.snapshots if label != BEST]
        return {label: 1 if label == "1" else max(1, round(self.epochs * int(label) / 100)) for label in labels}

    @property
    def last_epoch(self) -> int:
        """Epochs that are trained: no snapshot shows what comes after."""
        return self.epochs if BEST in self.snapshots else max(self.snapshot_epochs.values())


@dataclass(frozen=True)
class Snapshot:
    """n networks at one time: stacked state dicts [n, *shape] as stored, and right answers on the test samples [n],
    -1 for a network that has diverged, or is not finite as it is stored."""

    state: State
    correct: Tensor

    def keep_better(self, other: "Snapshot") -> None:
        """Replace those networks, in place, that answer more test samples rightly in `other`."""
        better = other.correct > self.correct
        for mine, others in zip(
            (*self.state.values(), self.correct), (*other.state.values(), other.correct), strict=True
        ):
            mine[better] = others[better]


@dataclass(frozen=True)
class TrainedPopulation:
    """n trained networks: snapshots by label, and diverged [n], the epoch in which each diverged (0: it did not)."""

    snapshots: dict[str, Snapshot]
    diverged: Tensor


def lr_factor(step: int, steps: int) -> float:
    """Share of the full learning rate at `step` of 0 .. steps - 1."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Population:
    """n networks of one spec with one optimizer and train fraction, and all else their own.

    A network whose gradient is not finite is not moved any more.
    """

    def __init__(self, plan: TrainingPlan, runs: Sequence[int], settings: Sequence[Hyperparameters], data: TaskData):
        """Args: the numbers of the runs, their hyperparameters, and data on the device to train on."""
        first = settings[0]
        assert all((s.optimizer, s.train_fraction) == (first.optimizer, first.train_fraction) for s in settings)
        self._plan, self._data = plan, data
        device = data.train.labels.device
        self._shapes = {key: shape for key, shape in state_dict_shapes(plan.spec).items() if key != POSITION_KEY}
        rows = torch.empty(len(runs), row_length(self._shapes))
        for row, setting, generator in zip(rows, settings, run_streams(plan.seed, runs, "weights"), strict=True):
            state = initial_state(plan.spec, setting.w_init_std, generator)
            flatten_state_dict(state, self._shapes, row)
        self._constants = {key: state[key].to(device, data.dtype) for key in state.keys() - self._shapes.keys()}
        self._rows = rows.to(device, data.dtype).requires_grad_()  # [n, P]
        lr, l2_regularize = (
            torch.tensor(values).to(self._rows)
            for values in ([s.lr for s in settings], [s.l2_regularize for s in settings])
        )
        self._optimizer = PopulationOptimizer(first.optimizer, self._rows, lr, l2_regularize)
        dropout = torch.tensor([s.dropout for s in settings])
        self._dropout = PopulationDropout(dropout, run_streams(plan.seed, runs, "dropout"))
        self._batches = PopulationBatches(
            data.train, first.train_fraction, plan.batch_size, plan.crop_padding, plan.seed, runs
        )
        self._step = self._epoch = 0
        self.diverged = torch.zeros(len(runs), dtype=torch.int64, device=device)
        """[n], the epoch in which each network diverged, from 1; 0 where it did not."""

    def state(self) -> State:
        """The stacked state dicts as views of the parameters: key -> [n, *shape], in the canonical order."""
        constants = {key: tensor.expand(len(self._rows), *tensor.shape) for key, tensor in self._constants.items()}
        return {**constants, **unflatten_rows(self._rows, self._shapes)}

    def train_epoch(self) -> None:
        """One pass over every network's train samples."""
        self.train_batches(self._batches.steps)

    def train_batches(self, count: int) -> None:
        """The first batches of a new pass."""
        self._epoch += 1
        steps = self._plan.epochs * self._batches.steps
        for inputs, labels in itertools.islice(self._batches.epoch(), count):
            gradient = self._gradient(inputs, labels)
            sound = gradient.sum(1).isfinite()
            self.diverged.masked_fill_(~sound & (self.diverged == 0), self._epoch)
            self._optimizer.step(gradient, lr_factor(self._step, steps), self.diverged == 0)
            self._step += 1
        finite = self._rows.detach().sum(1).isfinite()
        self.diverged.masked_fill_(~finite & (self.diverged == 0), self._epoch)

    def _gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        weights = weights_from_state_dict(self.state(), self._plan.spec)
        logits = self._data.logits(inputs, weights, self._dropout)  # [n, batch, classes]
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return torch.autograd.grad(total / labels.shape[1], self._rows)[0]

    @torch.no_grad()
    def snapshot(self) -> Snapshot:
        """The networks as they are stored, and the answers that the stored weights give."""
        precision = torch.float16 if self._plan.half else torch.float32
        state = {key: tensor.to(precision, copy=True) for key, tensor in self.state().items()}
        correct = count_correct(state, self._plan.spec, self._data)
        finite = torch.stack([tensor.isfinite().flatten(1).all(1) for tensor in state.values()]).all(0)
        self.diverged.masked_fill_(~finite & (self.diverged == 0), self._epoch)
        correct.masked_fill_(self.diverged > 0, -1)
        return Snapshot({key: tensor.cpu() for key, tensor in state.items()}, correct.cpu())


@torch.no_grad()
def count_correct(state: State, spec: TransformerSpec, data: TaskData) -> Tensor:
    """Test samples that each network classifies rightly: int64 [n].

    Args:
        state: stacked state dicts [n, *shape] in any precision; the arithmetic is the data's.
    """
    inputs, labels = data.test.inputs, data.test.labels
    weights = weights_from_state_dict({k: tensor.to(labels.device, data.dtype) for k, tensor in state.items()}, spec)
    correct = torch.zeros(weights.batch, dtype=torch.int64, device=labels.device)
    for start in range(0, len(labels), _TEST_CHUNK):
        part = slice(start, start + _TEST_CHUNK)
        answers = data.logits(inputs[None, part], weights).argmax(-1)  # [n, samples]
        correct += (answers == labels[part]).sum(1)
    return correct


def train_population(
    plan: TrainingPlan,
    runs: Sequence[int],
    settings: Sequence[Hyperparameters],
    data: TaskData,
    after_epoch: Callable[[], object] = lambda: None,
) -> TrainedPopulation:
    """Train runs together up to the plan's last snapshot.

    Args:
        data: on the device to train on.
        after_epoch: called after each epoch, for progress.
    """
    population = Population(plan, runs, settings, data)
    snapshots: dict[str, Snapshot] = {}
    for epoch in range(1, plan.last_epoch + 1):
        population.train_epoch()
        due = [label for label, when in plan.snapshot_epochs.items() if when == epoch]
        if due or BEST in plan.snapshots:
            now = population.snapshot()
            snapshots.update(dict.fromkeys(due, now))
        if BEST in plan.snapshots:
            if BEST in snapshots:
                snapshots[BEST].keep_better(now)
            else:
                snapshots[BEST] = Snapshot({k: tensor.clone() for k, tensor in now.state.items()}, now.correct.clone())
        after_epoch()
    return TrainedPopulation(snapshots, population.diverged.cpu())
