"""Training of n standard transformers at once; the loss is the sum of the networks' mean cross entropies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.nn.init import trunc_normal_

from nfn_transformer.generation.batches import PopulationBatches, run_generators
from nfn_transformer.generation.dropout import PopulationDropout
from nfn_transformer.generation.optimizers import PopulationOptimizer
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.generation.standard_forward import training_outputs
from nfn_transformer.generation.standard_recipe import StandardSettings
from nfn_transformer.generation.standard_tasks import StandardTask
from nfn_transformer.generation.training_plan import lr_factor, snapshot_epochs
from nfn_transformer.weights.standard_pass import standard_outputs
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import layout_entries, standard_shapes, standard_weights
from nfn_transformer.weights.state_dicts import row_length, unflatten_rows

# One layer's activations of four batches take less memory than those of one batch that training saves.
_BATCHES_AT_ONCE = 4

_WARMUP_STEPS = 100
"""Most steps of the warm-up of a constant learning rate; it ends with the first epoch where that is shorter."""


@dataclass(frozen=True)
class StandardTraining:
    """Settings that all networks of a population share."""

    spec: StandardTransformerSpec
    """Spec of the networks, with the layout of their rows."""
    batch_size: int
    """Samples in a batch of each network."""
    seed: int
    """Seed of the zoo."""
    snapshots: tuple[str, ...]
    """Whole numbers in `snapshot_unit`."""
    snapshot_unit: str
    """One of SNAPSHOT_UNITS."""
    half: bool
    """True if snapshots are rounded to half precision."""

    def due(self, epochs: int) -> tuple[int, ...]:
        """Return the ascending epochs after which a network that trains for `epochs` is recorded; 0: untrained."""
        if not epochs:
            return (0,)
        return tuple(sorted(set(snapshot_epochs(self.snapshots, self.snapshot_unit, epochs).values())))


@dataclass(frozen=True)
class SampleScores:
    """Scores of m networks on some samples."""

    accuracies: Tensor
    """Share [m] of classes or next tokens that are told, float64."""
    losses: Tensor
    """Mean cross entropies [m] in nats, float64."""


@dataclass
class Recorded:
    """Networks at some time of their training, in the order of recording."""

    numbers: list[Tensor] = field(default_factory=list)
    """Numbers [m] in the zoo."""
    epochs: list[Tensor] = field(default_factory=list)
    """Epochs [m] after which they are recorded."""
    rows: list[Tensor] = field(default_factory=list)
    """Weights [m, P], as stored."""
    test: list[SampleScores] = field(default_factory=list)
    """Scores on the test samples."""
    fresh: list[SampleScores] = field(default_factory=list)
    """Scores on the fresh ones."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all as tensors of one row a record."""
        columns = {"numbers": self.numbers, "epochs": self.epochs, "rows": self.rows}
        for name, scores in (("test", self.test), ("fresh", self.fresh)):
            columns[f"{name}_accuracies"] = [score.accuracies for score in scores]
            columns[f"{name}_losses"] = [score.losses for score in scores]
        return {name: torch.cat(tensors) for name, tensors in columns.items() if tensors}


def initial_row(spec: StandardTransformerSpec, std: float, generator: Generator) -> Tensor:
    """Return the numbers [P] of a new network: matrices and tokens normal, cut off at two `std`; gains 1, else 0."""
    shapes = standard_shapes(spec)
    row = torch.zeros(1, row_length(shapes))
    role_of = {
        entry.key.replace("{}", str(block)): entry.roles.split()[0]
        for entry in layout_entries(spec)
        for block in range(spec.blocks)
    }
    for key, stacked in unflatten_rows(row, shapes).items():
        role = role_of[key]
        if "gain" in role:
            stacked.fill_(1.0)
        elif "shift" not in role and not role.startswith("b_") and not role.endswith(".bias"):
            trunc_normal_(stacked, std=std, a=-2 * std, b=2 * std, generator=generator)
    return row[0]


@torch.no_grad()
def score_networks(
    rows: Tensor, spec: StandardTransformerSpec, task: StandardTask, samples: LabelledSamples, at_once: int = 64
) -> SampleScores:
    """Return the scores of m networks [m, P] on some samples; NaN without samples."""
    weights = standard_weights(unflatten_rows(rows, standard_shapes(spec)), spec)
    right, loss = torch.zeros(2, len(rows), dtype=torch.float64, device=rows.device)
    count = 0
    for start in range(0, len(samples.labels), at_once):
        inputs, targets = task.inputs_and_targets(samples, slice(start, start + at_once))
        logits = standard_outputs(inputs, weights)  # [m, samples, (tokens,) outputs]
        targets = targets.expand(logits.shape[:-1])
        right += (logits.argmax(-1) == targets).flatten(1).sum(1)
        losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        loss += losses.view(len(rows), -1).double().sum(1)
        count += targets[0].numel()
    return SampleScores((right / count).cpu(), (loss / count).cpu())


class StandardPopulation:
    """n networks of one spec in training; they take each step together, and leave one by one.

    A network whose gradient is not finite is not moved any more, and not recorded.
    """

    def __init__(
        self,
        training: StandardTraining,
        numbers: Sequence[int],
        settings: Sequence[StandardSettings],
        task: StandardTask,
    ):
        """Initialize the networks.

        Args:
            training: settings of all.
            numbers: of the networks in the zoo, for their random numbers.
            settings: of each network; those with the same optimizer are adjacent.
            task: on the device to train on.
        """
        self._training, self._task = training, task
        self._shapes = standard_shapes(training.spec)
        device = task.train.inputs.device
        generators = run_generators(training.seed, numbers, "weights")
        rows = [
            initial_row(training.spec, one.w_init_std, generator)
            for one, generator in zip(settings, generators, strict=True)
        ]
        dtype = task.train.inputs.dtype if task.train.inputs.is_floating_point() else torch.float32
        self._rows = torch.stack(rows).to(device, dtype).requires_grad_()  # [n, P]
        lr, l2 = (torch.tensor([getattr(s, name) for s in settings]).to(self._rows) for name in ("lr", "l2_regularize"))
        self._optimizer = PopulationOptimizer([s.optimizer for s in settings], self._rows, lr, l2)
        self._dropout = PopulationDropout([s.dropout for s in settings], training.seed, numbers, device)
        fractions = [s.train_fraction for s in settings]
        self._batches = PopulationBatches(task.train, fractions, training.batch_size, 0, training.seed, numbers)
        self._moving = torch.ones(len(rows), dtype=torch.bool, device=device)
        self._step = 0
        self._numbers = torch.tensor(numbers)
        self._due = [training.due(one.epochs) for one in settings]
        epochs = torch.tensor([one.epochs for one in settings])
        self._lengths = (epochs * self._batches.steps).to(device)  # [n], steps
        self._warmups = self._batches.steps.clamp(max=_WARMUP_STEPS).to(device)
        self._is_constant = torch.tensor([one.schedule == "constant" for one in settings], device=device)
        self.left = torch.arange(len(rows))
        """Indices, among the n, of the networks in training."""
        self.recorded = Recorded()
        """Networks recorded so far."""
        self._end_epochs(torch.zeros(len(rows), dtype=torch.int64))

    def step(self) -> list[int]:
        """Train every network on one batch; return the indices of those whose epoch ended."""
        inputs, targets = self._task.read_and_target(*self._batches.batch(self._step))
        weights = standard_weights(unflatten_rows(self._rows, self._shapes), self._training.spec)
        logits = training_outputs(inputs, weights, self._dropout)  # [n, b, (tokens,) outputs]
        total = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")
        gradient = torch.autograd.grad(total / targets[0].numel(), self._rows)[0]
        self._moving = self._moving & gradient.sum(1).isfinite()
        self._optimizer.step(gradient, self._lr_factor(), self._moving)
        self._step += 1
        steps = self._batches.steps
        epochs = torch.where(self._step % steps == 0, self._step // steps, 0)  # [n], those that end now
        ended = self.left[epochs > 0].tolist()
        if ended:
            self._end_epochs(epochs)
        return ended

    def _lr_factor(self) -> Tensor:
        constant = ((self._step + 1) / self._warmups).clamp(max=1.0).double()
        return constant.where(self._is_constant, lr_factor(self._step, self._lengths))

    def _end_epochs(self, epochs: Tensor) -> None:
        """Record the networks that are due after these epochs [n], and go on with those that have later ones."""
        due = torch.tensor([epoch in self._due[index] for index, epoch in zip(self.left, epochs.tolist(), strict=True)])
        if due.any():
            self._record(due.nonzero().flatten(), epochs)
        last = torch.tensor([self._due[index][-1] for index in self.left])
        going = (epochs < last).nonzero().flatten()
        if len(going) < len(self.left):
            self._select(going)

    def _record(self, due: Tensor, epochs: Tensor) -> None:
        """Store and test the networks of these rows, unless they have diverged or are not finite as stored."""
        on_device = due.to(self._rows.device)
        stored = self._rows.detach()[on_device].to(torch.float16 if self._training.half else torch.float32)
        is_sound = stored.isfinite().all(1) & self._moving[on_device]
        stored, due = stored[is_sound], due[is_sound.cpu()]
        if not len(due):
            return
        as_read, at_once = stored.to(self._rows), _BATCHES_AT_ONCE * self._training.batch_size
        for samples, scores in ((self._task.test, self.recorded.test), (self._task.fresh, self.recorded.fresh)):
            scores.append(score_networks(as_read, self._training.spec, self._task, samples, at_once))
        self.recorded.numbers.append(self._numbers[self.left[due]])
        self.recorded.epochs.append(epochs[due])
        self.recorded.rows.append(stored.cpu())

    def _select(self, going: Tensor) -> None:
        """Go on with the networks of these rows alone."""
        on_device = going.to(self._rows.device)
        self._rows = self._rows.detach()[on_device].requires_grad_()
        self._optimizer.select(going.tolist(), self._rows)
        self._dropout.select(on_device)
        self._batches.select(going)
        self.left = self.left[going]
        self._moving, self._lengths, self._warmups, self._is_constant = (
            tensor[on_device] for tensor in (self._moving, self._lengths, self._warmups, self._is_constant)
        )


def train_standard(population: StandardPopulation, after_epochs: Callable[[list[int]], object]) -> dict[str, Tensor]:
    """Train a population to its end; `after_epochs` is called with the indices of networks whose epoch ended."""
    while len(population.left):
        if ended := population.step():
            after_epochs(ended)
    return population.recorded.tensors()
