"""Snapshots of networks in training: stored weights, and the number of test samples they classify correctly."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.training_plan import BEST, TrainingPlan
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.weights.state_dicts import Shape, row_length, unflatten_rows, weights_from_state_dict

State = dict[str, Tensor]

NOT_TAKEN = -1
"""`Snapshot.correct` of a network without this snapshot."""

# One layer's activations of four batches take less memory than those of one batch that training saves.
_BATCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Snapshot:
    """n networks, each at one time of its training."""

    state: State
    """Stacked state dicts [n, *shape], as stored."""
    correct: Tensor
    """Correctly classified test samples [n]; NOT_TAKEN of networks that diverged, are not finite, or are absent."""


@torch.no_grad()
def count_correct(state: State, spec: TransformerSpec, data: TaskData, at_once: int = 128) -> Tensor:
    """Count the test samples that each network classifies correctly: int64 [n].

    Args:
        state: stacked state dicts [n, *shape] in any precision; the arithmetic is in the data's.
        spec: of the networks.
        data: of the task.
        at_once: samples that go through all networks together; memory grows with it.
    """
    inputs, labels = data.test.inputs, data.test.labels
    weights = weights_from_state_dict({k: tensor.to(labels.device, data.dtype) for k, tensor in state.items()}, spec)
    correct = torch.zeros(weights.batch, dtype=torch.int64, device=labels.device)
    for start in range(0, len(labels), at_once):
        part = slice(start, start + at_once)
        answers = data.logits(inputs[None, part], weights).argmax(-1)  # [n, samples]
        correct += (answers == labels[part]).sum(1)
    return correct


class _Recorded(NamedTuple):
    """m networks at one time that wait for their test."""

    indices: list[int]
    """Indices among the n networks."""
    names: list[tuple[str, ...]]
    """Names of the snapshots of each network."""
    rows: Tensor
    """Weights [m, P], as stored."""
    sound: Tensor
    """True for networks that have not diverged and are finite as stored: bool [m]."""


class SnapshotRecorder:
    """Recorder of the snapshots of n networks: stored when they are due, and tested together, up to n at once."""

    def __init__(self, plan: TrainingPlan, data: TaskData, count: int, shapes: dict[str, Shape], constants: State):
        """Allocate all snapshots.

        Args:
            plan: of the training.
            data: of the task.
            count: n.
            shapes: of the parameters in a row, by key.
            constants: the other tensors of a state dict, common to all networks.
        """
        self._plan, self._data, self._count = plan, data, count
        self._shapes = shapes
        self._precision = torch.float16 if plan.half else torch.float32
        self._constants = {key: tensor.to(self._precision) for key, tensor in constants.items()}
        self._waiting: list[_Recorded] = []
        size = (count, row_length(shapes))
        self._rows = {name: torch.zeros(size, dtype=self._precision) for name in plan.snapshots}
        self._correct = {name: torch.full((count,), NOT_TAKEN) for name in plan.snapshots}

    @torch.no_grad()
    def record(self, indices: list[int], names: list[tuple[str, ...]], rows: Tensor, sound: Tensor) -> None:
        """Record m networks as they are now.

        Args:
            indices: of the networks, among the n.
            names: of the snapshots that are due, of each network.
            rows: parameters [m, P].
            sound: bool [m], which have not diverged.
        """
        if sum(len(recorded.indices) for recorded in self._waiting) + len(indices) > self._count:
            self._test()
        stored = rows.to(self._precision, copy=True)
        self._waiting.append(_Recorded(indices, names, stored, sound & stored.isfinite().all(1)))

    def snapshots(self) -> dict[str, Snapshot]:
        """Return all snapshots, by name, on the CPU."""
        self._test()
        return {name: Snapshot(self._state(rows), self._correct[name]) for name, rows in self._rows.items()}

    def _state(self, rows: Tensor) -> State:
        constants = {key: tensor.to(rows.device) for key, tensor in self._constants.items()}
        expanded = {key: tensor.expand(len(rows), *tensor.shape) for key, tensor in constants.items()}
        return {**expanded, **unflatten_rows(rows, self._shapes)}

    def _test(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat([recorded.rows for recorded in self._waiting])
        sound = torch.cat([recorded.sound for recorded in self._waiting])
        at_once = _BATCHES_AT_ONCE * self._plan.batch_size
        counts = count_correct(self._state(rows), self._plan.spec, self._data, at_once=at_once)
        correct = counts.masked_fill(~sound, NOT_TAKEN).tolist()
        rows = rows.cpu()
        indices = [index for recorded in self._waiting for index in recorded.indices]
        due = [names for recorded in self._waiting for names in recorded.names]
        for row, (index, names) in enumerate(zip(indices, due, strict=True)):
            for name in names:
                if name != BEST or correct[row] > self._correct[BEST][index]:
                    self._rows[name][index] = rows[row]
                    self._correct[name][index] = correct[row]
        self._waiting.clear()
