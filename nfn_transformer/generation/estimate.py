"""Cost of a zoo, estimated before it is made: memory of a network in training, time, and size."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.generation.batches import train_samples
from nfn_transformer.generation.hyperparameters import Architecture, ZooRun
from nfn_transformer.generation.population import Population
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.zoo_plan import ZooPlan
from nfn_transformer.resources import free_bytes
from nfn_transformer.weights.state_dicts import row_length, state_dict_shapes

_MOST_ON_CPU, _MOST_ON_GPU = 64, 4096
_TIMED_STEPS = 3

# Parameters, gradient, two states of the optimizer, and temporary tensors of its step.
_ROWS_OF_PARAMETERS = 8
# Gradients and temporary tensors of the backward pass, in multiples of the activations saved for it.
_SHARE_OF_ACTIVATIONS = 2
# A train sample's index and its crop.
_BYTES_OF_SAMPLE = 6
_FILE_BYTES = 9000
"""Bytes that `torch.save` adds to the numbers of a checkpoint."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a zoo."""

    seconds: float | None
    """Seconds of training by one process; None if not measured."""
    checkpoints: int
    """Number of checkpoints."""
    size: int
    """Bytes of the checkpoints before compression."""


def population_size(plan: ZooPlan, data: TaskData, device: torch.device, processes: int = 1) -> int:
    """Return how many networks fit into half of the device's free memory, shared by `processes`; on a CPU at most 64.

    64 networks keep the cores of a CPU busy.
    """
    by_dropout = sorted(plan.runs, key=lambda run: run.settings.dropout)
    architectures = {run.architecture: run for run in by_dropout}  # of each the run that saves the most
    most = max(_training_bytes(plan, data, run, device) for run in architectures.values())
    free = free_bytes(device) / 2 / processes
    _release(device)
    return max(1, min(int(free / most), _MOST_ON_CPU if device.type == "cpu" else _MOST_ON_GPU))


def _training_bytes(plan: ZooPlan, data: TaskData, run: ZooRun, device: torch.device) -> int:
    """Return the bytes that one more network takes in training."""
    population = Population(plan.training(run, data), [run], data.to(device))
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        population.step()
    parameters = row_length(state_dict_shapes(plan.training(run, data).spec)) * data.dtype.itemsize
    samples = _BYTES_OF_SAMPLE * len(data.train.labels)
    return _ROWS_OF_PARAMETERS * parameters + _SHARE_OF_ACTIVATIONS * sum(saved.values()) + samples


def estimate(
    plan: ZooPlan, data: TaskData, device: torch.device | None, finished: Collection[int] = frozenset()
) -> Estimate:
    """Estimate the cost of a zoo.

    Args:
        plan: of the zoo.
        data: of the task.
        device: that trains a few batches of each architecture for the time; None: no time is measured.
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


def _seconds(plan: ZooPlan, groups: Sequence[Sequence[ZooRun]], data: TaskData, device: torch.device) -> float:
    seconds = 0.0
    seconds_per_step: dict[Architecture, float] = {}  # of one network
    for runs in groups:
        training, architecture = plan.training(runs[0], data), runs[0].architecture
        if architecture not in seconds_per_step:
            population = Population(training, runs, data)
            seconds_per_step[architecture] = _seconds_per_step(population, device) / len(runs)
        for run in runs:
            steps = train_samples(run.settings.train_fraction, len(data.train.labels)) // plan.batch_size
            seconds += training.last_epoch(run.epochs) * steps * seconds_per_step[architecture]
    _release(device)
    return seconds


def _seconds_per_step(population: Population, device: torch.device) -> float:
    population.step()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        if population.in_training:
            population.step()
    synchronize(device)
    return (time.perf_counter() - start) / _TIMED_STEPS


def _release(device: torch.device) -> None:
    """Release the memory that the measurement took to other processes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait for a GPU, whose work goes on behind the calls that begin it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
