"""Snapshots of networks in training: stored weights, and how many test samples these classify rightly."""

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
"""Right answers of a network of which there is no such snapshot."""

# Of four batches the activations of one layer at a time take less than those of a batch that training keeps.
_BATCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Snapshot:
    """n networks at one time of their training each: stacked state dicts [n, *shape] as stored, and right answers on
    the test samples [n], NOT_TAKEN for a network that had diverged, or is not finite as stored, or was not taken."""

    state: State
    correct: Tensor


@torch.no_grad()
def count_correct(state: State, spec: TransformerSpec, data: TaskData, at_once: int = 128) -> Tensor:
    """Test samples that each network classifies rightly: int64 [n].

    Args:
        state: stacked state dicts [n, *shape] in any precision; the arithmetic is the data's.
        at_once: samples that go through all networks together, which is what memory depends on.
    """
    inputs, labels = data.test.inputs, data.test.labels
    weights = weights_from_state_dict({k: tensor.to(labels.device, data.dtype) for k, tensor in state.items()}, spec)
    correct = torch.zeros(weights.batch, dtype=torch.int64, device=labels.device)
    for start in range(0, len(labels), at_once):
        part = slice(start, start + at_once)
        answers = data.logits(inputs[None, part], weights).argmax(-1)  # [n, samples]
        correct += (answers == labels[part]).sum(1)
    return correct


class _Taken(NamedTuple):
    """Networks at one time: their places, each one's names of snapshots, weights as stored [m, P], sound [m]."""

    places: list[int]
    names: list[tuple[str, ...]]
    rows: Tensor
    sound: Tensor


class Album:
    """Snapshots of n networks, which are taken as they fall due and tested together, as many at once as there are."""

    def __init__(self, plan: TrainingPlan, data: TaskData, count: int, shapes: dict[str, Shape], constants: State):
        """Args: shapes, of a row of parameters; constants, the other tensors of a state dict, of all networks."""
        self._plan, self._data, self._count = plan, data, count
        self._shapes = shapes
        self._precision = torch.float16 if plan.half else torch.float32
        self._constants = {key: tensor.to(self._precision) for key, tensor in constants.items()}
        self._waiting: list[_Taken] = []
        size = (count, row_length(shapes))
        self._rows = {name: torch.zeros(size, dtype=self._precision) for name in plan.snapshots}
        self._correct = {name: torch.full((count,), NOT_TAKEN) for name in plan.snapshots}

    @torch.no_grad()
    def take(self, places: list[int], names: list[tuple[str, ...]], rows: Tensor, sound: Tensor) -> None:
        """Take networks as they are now.

        Args:
            places: of the networks among the n; each has `names`, and a row of `rows` [m, P].
            sound: bool [m], which have not diverged.
        """
        if sum(len(taken.places) for taken in self._waiting) + len(places) > self._count:
            self._test()
        stored = rows.to(self._precision, copy=True)
        self._waiting.append(_Taken(places, names, stored, sound & stored.isfinite().all(1)))

    def snapshots(self) -> dict[str, Snapshot]:
        """All that were taken, by name, on the CPU."""
        self._test()
        found = {}
        for name, rows in self._rows.items():
            found[name] = Snapshot(self._state(rows), self._correct[name])
        return found

    def _state(self, rows: Tensor) -> State:
        constants = {key: tensor.to(rows.device) for key, tensor in self._constants.items()}
        expanded = {key: tensor.expand(len(rows), *tensor.shape) for key, tensor in constants.items()}
        return {**expanded, **unflatten_rows(rows, self._shapes)}

    def _test(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat([taken.rows for taken in self._waiting])
        sound = torch.cat([taken.sound for taken in self._waiting])
        correct = count_correct(
            self._state(rows), self._plan.spec, self._data, at_once=_BATCHES_AT_ONCE * self._plan.batch_size
        )
        correct = correct.masked_fill(~sound, NOT_TAKEN).tolist()
        rows = rows.cpu()
        places = [place for taken in self._waiting for place in taken.places]
        named = [names for taken in self._waiting for names in taken.names]
        for number, (place, names) in enumerate(zip(places, named, strict=True)):
            for name in names:
                if name != BEST or correct[number] > self._correct[BEST][place]:
                    self._rows[name][place] = rows[number]
                    self._correct[name][place] = correct[number]
        self._waiting.clear()
