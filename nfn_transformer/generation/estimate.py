"""What a zoo will take, measured before it begins: memory of a network in training, time, and size."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.free_memory import free_bytes
from nfn_transformer.generation.hyperparameters import Architecture, Run
from nfn_transformer.generation.population import Population
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.streams import train_samples
from nfn_transformer.generation.zoo_maker import ZooPlan
from nfn_transformer.weights.state_dicts import row_length, state_dict_shapes

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
    """seconds of training by one process, None where they were not measured; checkpoints, and their size in bytes
    before compression."""

    seconds: float | None
    checkpoints: int
    size: int


def population_size(plan: ZooPlan, data: TaskData, device: torch.device, processes: int = 1) -> int:
    """How many networks fit into half of the device's free memory, which so many processes share; on a CPU at most 64,
    which keep its cores busy."""
    by_dropout = sorted(plan.runs, key=lambda run: run.settings.dropout)
    architectures = {run.architecture: run for run in by_dropout}  # of each the run that keeps the most
    most = max(_training_bytes(plan, data, run, device) for run in architectures.values())
    free = free_bytes(device) / 2 / processes
    _give_back(device)
    return max(1, min(int(free / most), _MOST_ON_CPU if device.type == "cpu" else _MOST_ON_GPU))


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


def estimate(
    plan: ZooPlan, data: TaskData, device: torch.device | None, finished: Collection[int] = frozenset()
) -> Estimate:
    """What making the zoo takes.

    Args:
        device: on which a few batches of a population of each size of network are trained, for the time; or None.
        finished: numbers of populations that take no more time.
    """
    size = checkpoints = 0
    for run in plan.runs:
        training = plan.training(run, data)
        numbers, count = row_length(state_dict_shapes(training.spec)), len(training.names(run.epochs))
        checkpoints += count
        size += count * (numbers * (2 if plan.half else 4) + _FILE_BYTES)
    groups = [runs for number, runs in enumerate(plan.populations()) if number not in finished]
    return Estimate(None if device is None else _seconds(plan, groups, data.to(device), device), checkpoints, size)


def _seconds(plan: ZooPlan, groups: Sequence[Sequence[Run]], data: TaskData, device: torch.device) -> float:
    seconds = 0.0
    of_step: dict[Architecture, float] = {}  # of one network
    for runs in groups:
        training, architecture = plan.training(runs[0], data), runs[0].architecture
        if architecture not in of_step:
            of_step[architecture] = _seconds_of_step(Population(training, runs, data), device) / len(runs)
        for run in runs:
            steps = train_samples(run.settings.train_fraction, len(data.train.labels)) // plan.batch_size
            seconds += training.last_epoch(run.epochs) * steps * of_step[architecture]
    _give_back(device)
    return seconds


def _seconds_of_step(population: Population, device: torch.device) -> float:
    population.step()
    _wait_for(device)
    start = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        if population.in_training:
            population.step()
    _wait_for(device)
    return (time.perf_counter() - start) / _TIMED_STEPS


def _give_back(device: torch.device) -> None:
    """Leave the memory that was taken for measuring to other processes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
