"""Training of n CNNs at once by grouped convolutions; the loss is the sum of the networks' mean cross entropies."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.nn import init

from nfn_transformer.generation.batches import PopulationBatches
from nfn_transformer.generation.cnn_recipe import CnnSettings
from nfn_transformer.generation.dropout import PopulationDropout
from nfn_transformer.generation.optimizers import PopulationOptimizer
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.generation.snapshots import NOT_TAKEN
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.state_dicts import row_length, unflatten_rows

KERNEL, STRIDE = 3, 2
"""Side of the kernels, and stride; there is no padding."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}


@dataclass(frozen=True)
class CnnPlan:
    """Sizes and training of CNNs: convolutions, the mean of each feature map, a linear layer."""

    maps: tuple[int, ...]
    """Channels of the images, then feature maps of each convolution."""
    classes: int
    """Outputs."""
    batch_size: int
    """Images in a batch of each network."""
    seed: int
    """Seed of the zoo."""
    snapshots: tuple[int, ...]
    """Ascending epochs, from 1, after which weights are kept; training ends at the last one."""
    half: bool
    """True if snapshots are rounded to half precision."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a network's tensors, in the order of a row."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (inputs, out) in enumerate(zip(self.maps, self.maps[1:], strict=False)):
            shapes |= {f"{layer}.weight": (out, inputs, KERNEL, KERNEL), f"{layer}.bias": (out,)}
        return {**shapes, "linear.weight": (self.classes, self.maps[-1]), "linear.bias": (self.classes,)}


@dataclass(frozen=True)
class TrainedCnns:
    """n trained CNNs at s times each."""

    rows: Tensor
    """Numbers [n, s, P], as stored."""
    correct: Tensor
    """Correctly classified test images [n, s]; NOT_TAKEN from where a network diverged or is not finite as stored."""


def initial_cnn(plan: CnnPlan, settings: CnnSettings, generator: Generator) -> Tensor:
    """Return the numbers [P] of a new network: weights by its initialization, biases zero."""
    row = torch.zeros(1, row_length(plan.shapes))
    for name, stacked in unflatten_rows(row, plan.shapes).items():
        if name.endswith("bias"):
            continue
        weight = stacked[0]
        inputs, outputs = weight[0].numel(), weight.shape[0] * math.prod(weight.shape[2:])
        stds = {"glorot_normal": (2 / (inputs + outputs)) ** 0.5, "he_normal": (2 / inputs) ** 0.5}
        std = stds.get(settings.w_init, settings.init_std)
        if settings.w_init == "orthogonal":
            init.orthogonal_(weight, generator=generator)
        elif settings.w_init == "normal":
            init.normal_(weight, std=std, generator=generator)
        else:
            init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
    return row[0]


def cnn_logits(
    rows: Tensor, plan: CnnPlan, activation: str, images: Tensor, dropout: PopulationDropout | None = None
) -> Tensor:
    """Return the logits [n, b, classes] of n networks on images [n, b, channels, height, width].

    Dropout comes after each activation. An activation of zero is zero, so that numbers are dropped before it instead,
    and what reads the others is rescaled instead of them.

    Args:
        rows: numbers [n, P] of the networks.
        plan: their sizes.
        activation: one of CNN_ACTIVATIONS.
        images: of each network; expanded ones may be the same for all.
        dropout: of training.
    """
    tensors = list(unflatten_rows(rows, plan.shapes).values())
    count = len(rows)
    maps = images.transpose(0, 1).flatten(1, 2)  # [b, n * channels, height, width]
    for layer, (weight, bias) in enumerate(zip(tensors[:-2:2], tensors[1:-2:2], strict=True)):
        if dropout is not None and layer:
            weight = weight * dropout.scale[:, None, None, None, None]
        maps = F.conv2d(maps, weight.flatten(0, 1), bias.flatten(), stride=STRIDE, groups=count)  # [b, n * out, ...]
        if dropout is not None:
            maps.mul_(dropout.kept(len(maps), maps[0].numel() // count).view_as(maps))
        maps = _ACTIVATIONS[activation](maps)
    means = maps.mean((2, 3)).unflatten(1, (count, -1)).transpose(0, 1)  # [n, b, maps]
    if dropout is not None:
        means = means * dropout.scale[:, None, None]
    return torch.baddbmm(tensors[-1][:, None], means, tensors[-2].transpose(1, 2))


@torch.no_grad()
def count_correct_images(
    rows: Tensor, plan: CnnPlan, activation: str, test: LabelledSamples, at_once: int = 128
) -> Tensor:
    """Count the test images that each network classifies correctly: int64 [n]."""
    correct = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for images, labels in zip(test.inputs.split(at_once), test.labels.split(at_once), strict=True):
        logits = cnn_logits(rows, plan, activation, images.expand(len(rows), *images.shape))
        correct += (logits.argmax(2) == labels).sum(1)
    return correct


class CnnPopulation:
    """n CNNs in training, each on its own images; they take each step together, and leave one by one.

    A network whose gradient is not finite is not moved any more.
    """

    def __init__(
        self,
        plan: CnnPlan,
        numbers: Sequence[int],
        settings: Sequence[CnnSettings],
        train: LabelledSamples,
        test: LabelledSamples,
    ):
        """Initialize the networks.

        Args:
            plan: of the training.
            numbers: of the networks in the zoo, for their random numbers.
            settings: of each network; all have the same activation, and those with the same optimizer are adjacent.
            train: images on the device to train on.
            test: images that are counted.
        """
        self._plan, self._activation, self._test = plan, settings[0].activation, test
        generators = [make_generator(plan.seed, "run", number, "weights") for number in numbers]
        rows = [initial_cnn(plan, one, generator) for one, generator in zip(settings, generators, strict=True)]
        self._rows = torch.stack(rows).to(train.inputs).requires_grad_()  # [n, P]
        lr, l2reg = (
            torch.tensor(values).to(self._rows)
            for values in ([s.learning_rate for s in settings], [s.l2reg for s in settings])
        )
        self._optimizer = PopulationOptimizer([s.optimizer for s in settings], self._rows, lr, l2reg)
        self._dropout = PopulationDropout([s.dropout for s in settings], plan.seed, numbers, self._rows.device)
        fractions = [s.train_fraction for s in settings]
        self._batches = PopulationBatches(train, fractions, plan.batch_size, 0, plan.seed, numbers)
        self._moving = torch.ones(len(rows), dtype=torch.bool, device=self._rows.device)
        self._step = 0
        self.left = torch.arange(len(rows))
        """Indices, among the n, of the networks in training."""
        size = (len(rows), len(plan.snapshots), self._rows.shape[1])
        stored = torch.zeros(size, dtype=torch.float16 if plan.half else torch.float32)
        self.trained = TrainedCnns(stored, torch.full(size[:2], NOT_TAKEN))
        """Results; those of networks in training are not complete."""

    def step(self) -> int:
        """Train every network on one batch; return the number of epochs that ended."""
        images, labels = self._batches.batch(self._step)
        logits = cnn_logits(self._rows, self._plan, self._activation, images, self._dropout)  # [n, b, classes]
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        gradient = torch.autograd.grad(total / labels.shape[1], self._rows)[0]
        self._moving = self._moving & gradient.sum(1).isfinite()
        self._optimizer.step(gradient, self._rows.new_ones(len(self._rows)), self._moving)
        self._step += 1
        steps = self._batches.steps
        epochs = torch.where(self._step % steps == 0, self._step // steps, 0)  # [n], those that end now
        for column, epoch in enumerate(self._plan.snapshots):
            if len(due := (epochs == epoch).nonzero().flatten()):
                self._record(due, column)
        going = (epochs < self._plan.snapshots[-1]).nonzero().flatten()
        if len(going) < len(self.left):
            self._select(going)
        return int((epochs > 0).sum())

    def _record(self, due: Tensor, column: int) -> None:
        """Store and test the networks of these rows."""
        rows = self._rows.detach()[due.to(self._rows.device)].to(self.trained.rows.dtype)
        correct = count_correct_images(rows.to(self._rows), self._plan, self._activation, self._test)
        sound = rows.isfinite().all(1) & self._moving[due.to(self._rows.device)]
        self.trained.rows[self.left[due], column] = rows.cpu()
        self.trained.correct[self.left[due], column] = correct.where(sound, NOT_TAKEN).cpu()

    def _select(self, going: Tensor) -> None:
        """Go on with the networks of these rows alone."""
        on_device = going.to(self._rows.device)
        self._rows = self._rows.detach()[on_device].requires_grad_()
        self._optimizer.select(going.tolist(), self._rows)
        self._dropout.select(on_device)
        self._batches.select(going)
        self.left, self._moving = self.left[going], self._moving[on_device]


def train_cnns(population: CnnPopulation, after_epochs: Callable[[int], object] = lambda count: None) -> TrainedCnns:
    """Train a population to its end; `after_epochs` is called with the number of epochs that have ended."""
    while len(population.left):
        if ended := population.step():
            after_epochs(ended)
    return population.trained
