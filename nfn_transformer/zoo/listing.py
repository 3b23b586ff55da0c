"""Listing of a zoo's networks: what a format tells of each before its weights are read."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nfn_transformer.errors import ZooError
from nfn_transformer.printable import quoted
from nfn_transformer.zoo.checkpoint import Outcome
from nfn_transformer.zoo.faults import Fault
from nfn_transformer.zoo.metadata import ALL_EPOCHS, DEFAULT_EPOCH, EMPTY_CELLS, LAST_EPOCHS, Columns, Condition
from nfn_transformer.zoo.network_facts import FACTS
from nfn_transformer.zoo.runs import canonical_epoch

_LAST, _BEST, _ALL = LAST_EPOCHS, "best", ALL_EPOCHS


@dataclass(frozen=True)
class ReadRequest:
    """Arguments of `reading.read_zoo` that decide which networks of a listing are read, and how."""

    dataset: str
    epoch: str = DEFAULT_EPOCH
    """a number, `best`, `last` or `all`"""
    condition: Condition = field(default_factory=Condition)
    columns: Columns = field(default_factory=Columns)
    weights_key: str | None = None
    labels: str = "accuracy"
    """kind of the labels, one of `metadata.LABELS`"""
    facts: Mapping[str, str] = field(default_factory=dict)
    """those of `network_facts.FACTS` that the user tells, as text"""
    allow_faulty: bool = False
    load_cache: bool = True
    n_workers: int = 0
    progress: bool = True


def refuse_flags(kind: str, flags: Mapping[str, object]) -> None:
    """Raise ZooError for the first flag, name -> value, that is given although zoos of a kind have no use for it."""
    for name, value in flags.items():
        if value is not None:
            raise ZooError(f"--{name} {value}: cannot be combined with {kind}")


class ListedNetwork(NamedTuple):
    """A checkpoint of a listing."""

    name: str
    """name in messages and records, unique in the listing"""
    run: str
    """training that it is of"""
    epoch: str
    """canonical epoch"""
    label: str | None
    """label as text; None where its file tells it"""
    facts: tuple[tuple[str, Any], ...] = ()
    """fields of `NetworkSpec` that the listing tells, sorted; its file may tell others"""
    hyperparameters: tuple[float, ...] | None = None
    """numbers `metadata.HYPERPARAMETERS`"""


@dataclass(frozen=True)
class Listing:
    """Networks of a data set that a request chooses, and the way to read them."""

    networks: Sequence[ListedNetwork]
    """in the order in which they are read"""
    outcomes: Callable[[], Iterator[Outcome]]
    """reads them, in this order"""
    fingerprint: str
    """text that changes when any of the files does"""
    faults: tuple[Fault, ...] = ()
    """checkpoints that the listing itself tells to be faulty"""
    runs_are_told: bool = True
    """see `metadata.Selection`"""
    notes: tuple[str, ...] = ()
    """sentences about how the zoo was read, for the screen"""
    duplicates: tuple[str, ...] = ()
    """see `FaultReport`"""
    unlisted: tuple[str, ...] = ()
    """see `FaultReport`"""


def told_facts(cells: Mapping[str, str]) -> dict[str, str]:
    """Return the cells of FACTS that are not empty; `none` is an activation, and elsewhere an empty cell."""
    told = {fact: cells[fact] for fact in FACTS if fact in cells}
    return {
        fact: text
        for fact, text in told.items()
        if text.lower() not in EMPTY_CELLS or (fact == "activation" and text.lower() == "none")
    }


def chosen_checkpoints(
    trainings: Sequence[str], epochs: Sequence[str], wanted: str, scores: Sequence[str] | None, place: str
) -> tuple[list[int], tuple[str, ...]]:
    """Return the positions of the checkpoints of an epoch, ascending, and notes for the screen.

    Args:
        trainings: training that each checkpoint is of; a run's copies are trainings of their own.
        epochs: their canonical epochs.
        wanted: a number as text, `best` (the highest score of each training), `last` or `all`. DEFAULT_EPOCH means the
            last one where a training lacks it.
        scores: labels as text, for `best`; None where files tell them.
        place: name of the zoo, for messages.

    Raises:
        ZooError: no checkpoint has this epoch, or scores are not there.
    """
    wanted = canonical_epoch(wanted)
    if wanted == _ALL:
        return list(range(len(trainings))), ()
    positions = [position for position, epoch in enumerate(epochs) if epoch == wanted]
    count = len(set(trainings))
    if wanted == DEFAULT_EPOCH and len({trainings[position] for position in positions}) < count:
        wanted = _LAST
    if wanted == _LAST:
        chosen = _greatest(trainings, [_number(epoch) for epoch in epochs])
        several = len(chosen) < len(trainings)
        return chosen, (f"read the last checkpoint of each of {count} trainings (--ckpt_epoch)",) if several else ()
    if wanted == _BEST and not positions:
        if scores is None:
            raise ZooError(
                f"{place}: --ckpt_epoch best: expected a table with labels; --ckpt_epoch last reads the last"
            )
        return _greatest(trainings, [_number(score) for score in scores]), ()
    if not positions:
        listed = sorted(set(epochs), key=lambda epoch: (_number(epoch), epoch))
        there = ", ".join(map(quoted, listed[:20])) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
        flag = "--ckpt_epoch takes last, best and all as well"
        raise ZooError(f"{place}: no checkpoints of epoch {quoted(wanted)}; there are {there}; {flag}")
    return positions, ()


def _greatest(trainings: Sequence[str], numbers: Sequence[float]) -> list[int]:
    """Return the position of the last greatest number of each training, ascending."""
    best: dict[str, int] = {}
    for position, training in enumerate(trainings):
        if training not in best or numbers[position] >= numbers[best[training]]:
            best[training] = position
    return sorted(best.values())


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return -math.inf
    return value if math.isfinite(value) else -math.inf
