"""What a zoo will take, measured before it begins: memory of a network in training, time, and size."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.free_memory import free_bytes
from nfn_transformer.making.hyperparameters import Run
from nfn_transformer.making.population import Population
from nfn_transformer.making.samples import TaskData
from nfn_transformer.making.zoo_maker import ZooPlan
from nfn_transformer.weights.checkpoint_format import row_length, state_dict_shapes

_MOST_ON_CPU, _MOST_ON_GPU = 64, 4096

# Parameters, gradient, two states of the optimizer and what a step of it makes on the way.
_ROWS_OF_PARAMETERS = 8
# Gradients of activations, and what operations need for themselves, in multiples of what is kept for the backward pass.
_SHARE_OF_ACTIVATIONS = 2
_FILE_BYTES = 9000
"""What `torch.save` adds to a checkpoint's numbers."""


@dataclass(frozen=True)
class Estimate:
    """seconds of training on one device; checkpoints, and their size in bytes before compression."""

    seconds: float
    checkpoints: int
    size: int


def _kinds(runs: Sequence[Run]) -> dict[tuple, list[Run]]:
    """Runs by what their time and memory depend on."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        found.setdefault((run.architecture, run.settings.optimizer), []).append(run)
    return found


def population_size(plan: ZooPlan, data: TaskData, device: torch.device) -> int:
    """How many networks fit into half of the device's free memory; on a CPU at most 64, which keep its cores busy."""
    architectures = {run.architecture: run for run in plan.runs}
    most = max(_training_bytes(plan, data, run, device) for run in architectures.values())
    return max(1, min(int(free_bytes(device) / 2 / most), _MOST_ON_CPU if device.type == "cpu" else _MOST_ON_GPU))


def _training_bytes(plan: ZooPlan, data: TaskData, run: Run, device: torch.device) -> int:
    """Bytes that training takes for one network more."""
    population = Population(plan.training(run, data), [run.number], [run.settings], data.to(device))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        population.train_batches(1)
    parameters = row_length(state_dict_shapes(plan.training(run, data).spec)) * data.dtype.itemsize
    return _ROWS_OF_PARAMETERS * parameters + _SHARE_OF_ACTIVATIONS * sum(kept.values())


def estimate(plan: ZooPlan, data: TaskData, device: torch.device) -> Estimate:
    """What making the zoo takes; time by training two batches of a population of each size of network and optimizer."""
    size = checkpoints = 0
    seconds = 0.0
    for same in _kinds(plan.runs).values():
        training = plan.training(same[0], data)
        count = len(same) * len(training.snapshots)
        checkpoints += count
        numbers = row_length(state_dict_shapes(training.spec))
        size += count * (numbers * (2 if plan.half else 4) + _FILE_BYTES)
        seconds += _seconds(plan, data.to(device), same, device)
    return Estimate(seconds, checkpoints, size)


def _seconds(plan: ZooPlan, data: TaskData, runs: Sequence[Run], device: torch.device) -> float:
    """Time of these runs, of one kind but for their train fractions and epochs."""
    first = runs[0]
    together = [run for run in runs if run.kind == first.kind][: plan.population]
    population = Population(
        plan.training(first, data), [run.number for run in together], [run.settings for run in together], data
    )
    population.train_batches(1)
    _wait_for(device)
    start = time.perf_counter()
    population.train_batches(2)
    _wait_for(device)
    step = (time.perf_counter() - start) / 2 / len(together)
    samples = sum(plan.training(run, data).last_epoch * run.settings.train_fraction for run in runs)
    return step * samples * len(data.train.labels) / plan.batch_size


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
