"""What a zoo will take, measured before it begins: memory of a network in training, time, and size."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.free_memory import free_bytes
from nfn_transformer.making.hyperparameters import Run
from nfn_transformer.making.population import Population
from nfn_transformer.making.samples import TaskData
from nfn_transformer.making.streams import train_samples
from nfn_transformer.making.training_plan import BEST
from nfn_transformer.making.zoo_maker import ZooPlan
from nfn_transformer.weights.checkpoint_format import row_length, state_dict_shapes

_MOST_ON_CPU, _MOST_ON_GPU = 64, 4096
_TIMED_STEPS = 3

# Parameters, gradient, two states of the optimizer and what a step of it makes on the way.
_ROWS_OF_PARAMETERS = 8
# Gradients of activations, and what operations need for themselves, in multiples of what is kept for the backward pass.
_SHARE_OF_ACTIVATIONS = 2
# A train sample's number, and where it is cropped.
_BYTES_OF_A_PLACE = 6
_FILE_BYTES = 9000
"""What `torch.save` adds to a checkpoint's numbers."""


@dataclass(frozen=True)
class Estimate:
    """seconds of training on one device; checkpoints, and their size in bytes before compression."""

    seconds: float
    checkpoints: int
    size: int


def population_size(plan: ZooPlan, data: TaskData, device: torch.device) -> int:
    """How many networks fit into half of the device's free memory; on a CPU at most 64, which keep its cores busy."""
    architectures = {run.architecture: run for run in plan.runs}
    most = max(_training_bytes(plan, data, run, device) for run in architectures.values())
    return max(1, min(int(free_bytes(device) / 2 / most), _MOST_ON_CPU if device.type == "cpu" else _MOST_ON_GPU))


def _training_bytes(plan: ZooPlan, data: TaskData, run: Run, device: torch.device) -> int:
    """Bytes that training takes for one network more."""
    population = Population(plan.training(run, data), [run], data.to(device))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        population.step()
    parameters = row_length(state_dict_shapes(plan.training(run, data).spec)) * data.dtype.itemsize
    order = _BYTES_OF_A_PLACE * len(data.train.labels)
    return _ROWS_OF_PARAMETERS * parameters + _SHARE_OF_ACTIVATIONS * sum(kept.values()) + order


def estimate(plan: ZooPlan, data: TaskData, device: torch.device) -> Estimate:
    """What making the zoo takes; time by training a few batches of a population of each size of network."""
    size = checkpoints = 0
    seconds = 0.0
    on_device = data.to(device)
    groups = plan.populations()
    seconds_of_step = {}
    for runs in groups:
        training, architecture = plan.training(runs[0], data), runs[0].architecture
        if architecture not in seconds_of_step:
            seconds_of_step[architecture] = _seconds_of_step(Population(training, runs, on_device), device) / len(runs)
        numbers = row_length(state_dict_shapes(training.spec))
        for run in runs:
            count = len(training.snapshot_epochs(run.epochs)) + (BEST in plan.snapshots)
            checkpoints += count
            size += count * (numbers * (2 if plan.half else 4) + _FILE_BYTES)
            steps = train_samples(run.settings.train_fraction, len(data.train.labels)) // plan.batch_size
            seconds += training.last_epoch(run.epochs) * steps * seconds_of_step[architecture]
    return Estimate(seconds, checkpoints, size)


def _seconds_of_step(population: Population, device: torch.device) -> float:
    population.step()
    _wait_for(device)
    start = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        if population.in_training:
            population.step()
    _wait_for(device)
    return (time.perf_counter() - start) / _TIMED_STEPS


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
