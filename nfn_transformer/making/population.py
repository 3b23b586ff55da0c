"""Training n networks at once: stacked weights, one forward and backward pass for all of them.

Each network's loss is its own mean cross entropy and the sum of the losses is what is
differentiated, so a network's gradient, and NaN, are its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nfn_transformer.making.hyperparameters import Hyperparameters
from nfn_transformer.making.images import ImageData, LabelledImages
from nfn_transformer.making.optimizers import PopulationOptimizer
from nfn_transformer.making.streams import (
    POSITION_KEY,
    PopulationBatches,
    PopulationDropout,
    initial_state,
    run_streams,
)
from nfn_transformer.networks.forward import image_logits
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

SNAPSHOT_LABELS = ("1", "50", "75", "100")
"""The release's names of snapshots: after the first epoch, then percents of the training."""

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
        """Label -> the number of epochs after which the snapshot is taken, at least 1."""
        found = {label: max(1, round(self.epochs * int(label) / 100)) for label in self.snapshots}
        return {label: 1 if label == "1" else epoch for label, epoch in found.items()}

    @property
    def last_epoch(self) -> int:
        """Epochs that are trained: no snapshot shows what comes after."""
        return max(self.snapshot_epochs.values())


@dataclass(frozen=True)
class Snapshot:
    """n networks at one time: stacked state dicts [n, *shape] as stored, and right answers on the test images [n]."""

    state: State
    correct: Tensor


def lr_factor(step: int, steps: int) -> float:
    """Share of the full learning rate at `step` of 0 .. steps - 1."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Population:
    """n networks of one spec with one optimizer and train fraction, and all else their own."""

    def __init__(
        self,
        plan: TrainingPlan,
        runs: Sequence[int],
        settings: Sequence[Hyperparameters],
        train: LabelledImages,
    ):
        """Args: the numbers of the runs, their hyperparameters, and train images on the device to train on."""
        first = settings[0]
        assert all((s.optimizer, s.train_fraction) == (first.optimizer, first.train_fraction) for s in settings)
        self._plan = plan
        like = train.images
        self._shapes = {key: shape for key, shape in state_dict_shapes(plan.spec).items() if key != POSITION_KEY}
        rows = torch.empty(len(runs), row_length(self._shapes))
        for row, setting, generator in zip(rows, settings, run_streams(plan.seed, runs, "weights"), strict=True):
            state = initial_state(plan.spec, setting.w_init_std, generator)
            flatten_state_dict(state, self._shapes, row)
        self._positions = state[POSITION_KEY].to(like)
        self._rows = rows.to(like).requires_grad_()  # [n, P]
        lr = torch.tensor([s.lr for s in settings]).to(like)
        l2_regularize = torch.tensor([s.l2_regularize for s in settings]).to(like)
        self._optimizer = PopulationOptimizer(first.optimizer, self._rows, lr, l2_regularize)
        dropout = torch.tensor([s.dropout for s in settings])
        self._dropout = PopulationDropout(dropout, run_streams(plan.seed, runs, "dropout"))
        self._batches = PopulationBatches(
            train, first.train_fraction, plan.batch_size, plan.crop_padding, plan.seed, runs
        )
        self._step = 0

    def state(self) -> State:
        """The stacked state dicts as views of the parameters: key -> [n, *shape], in the canonical order."""
        positions = self._positions.expand(len(self._rows), -1, -1)
        return {POSITION_KEY: positions, **unflatten_rows(self._rows, self._shapes)}

    def train_epoch(self) -> None:
        """One pass over every network's train images."""
        steps = self._plan.epochs * self._batches.steps
        for images, labels in self._batches.epoch():
            gradient = self._gradient(images, labels)
            self._optimizer.step(gradient, lr_factor(self._step, steps))
            self._step += 1

    def _gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        weights = weights_from_state_dict(self.state(), self._plan.spec)
        logits = image_logits(images, weights, self._dropout)  # [n, batch, classes]
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return torch.autograd.grad(total / labels.shape[1], self._rows)[0]

    @torch.no_grad()
    def snapshot(self, test: LabelledImages) -> Snapshot:
        """The networks as they are stored, and the answers that the stored weights give."""
        precision = torch.float16 if self._plan.half else torch.float32
        state = {key: tensor.to(precision, copy=True) for key, tensor in self.state().items()}
        correct = count_correct(state, self._plan.spec, test)
        return Snapshot({key: tensor.cpu() for key, tensor in state.items()}, correct.cpu())


@torch.no_grad()
def count_correct(state: State, spec: TransformerSpec, data: LabelledImages) -> Tensor:
    """Images that each network classifies rightly: int64 [n].

    Args:
        state: stacked state dicts [n, *shape] in any precision; the arithmetic is the images'.
    """
    weights = weights_from_state_dict({key: tensor.to(data.images) for key, tensor in state.items()}, spec)
    correct = torch.zeros(weights.batch, dtype=torch.int64, device=data.images.device)
    for start in range(0, len(data.labels), _TEST_CHUNK):
        part = slice(start, start + _TEST_CHUNK)
        answers = image_logits(data.images[None, part], weights).argmax(-1)  # [n, images]
        correct += (answers == data.labels[part]).sum(1)
    return correct


def train_population(
    plan: TrainingPlan,
    runs: Sequence[int],
    settings: Sequence[Hyperparameters],
    data: ImageData,
    after_epoch: Callable[[], object] = lambda: None,
) -> dict[str, Snapshot]:
    """Train runs together up to the plan's last snapshot: label -> snapshot.

    Args:
        data: images on the device to train on.
        after_epoch: called after each epoch, for progress.
    """
    population = Population(plan, runs, settings, data.train)
    snapshots = {}
    for epoch in range(1, plan.last_epoch + 1):
        population.train_epoch()
        for label, due in plan.snapshot_epochs.items():
            if due == epoch:
                snapshots[label] = population.snapshot(data.test)
        after_epoch()
    return snapshots
