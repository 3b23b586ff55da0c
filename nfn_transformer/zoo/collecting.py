"""What a zoo's checkpoints hold: those of the most common shape as one matrix, and every other one's fault."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nfn_transformer.weights.state_dicts import row_length
from nfn_transformer.zoo.checkpoint import Outcome, Shapes
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.row_matrix import RowMatrix, Scratch, no_scratch


@dataclass(frozen=True)
class Signature:
    """What makes two checkpoints of one shape: the shapes of their keys, and the number of heads."""

    shapes: Shapes
    heads: int


@dataclass(frozen=True)
class Collection:
    """The checkpoints of one epoch as they were read.

    Fields: names, file names of the sound checkpoints of the most common signature, sorted; rows [n, row length]
    float32, their numbers; signatures with their counts, the most common first; faults of all others that
    were read; stray_keys, file name -> unknown keys, of all that were read.
    """

    names: list[str]
    rows: Tensor
    signatures: list[tuple[Signature, int]]
    faults: list[Fault] = field(default_factory=list)
    stray_keys: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class _Group:
    names: list[str]
    matrix: RowMatrix


def collect(
    names: Sequence[str], heads: Iterable[int], outcomes: Iterable[Outcome], scratch: Scratch = no_scratch
) -> Collection:
    """Gather checkpoints as they come.

    Args:
        names: their file names, sorted.
        heads: their numbers of heads.
        outcomes: what reading them gave, in the same order.
        scratch: see `row_matrix.RowMatrix`.
    """
    groups: dict[Signature, _Group] = {}
    faults: list[Fault] = []
    stray: dict[str, tuple[str, ...]] = {}
    for name, head_count, outcome in zip(names, heads, outcomes, strict=True):
        if outcome.unknown:
            stray[name] = outcome.unknown
        if outcome.fault is not None:
            faults.append(outcome.fault)
            continue
        signature = Signature(outcome.shapes, head_count)
        if signature not in groups:
            groups[signature] = _Group([], RowMatrix(row_length(dict(signature.shapes)), len(names), scratch))
        groups[signature].names.append(name)
        groups[signature].matrix.append(outcome.row)
    # Sorting is stable: of two signatures as common as each other, the first in file order wins.
    ranked = sorted(groups.items(), key=lambda item: -len(item[1].names))
    if not ranked:
        return Collection([], torch.empty(0, 0), [], faults, stray)
    majority, chosen = ranked[0]
    for signature, group in ranked[1:]:
        detail = signature_difference(signature, majority)
        faults += [Fault(name, Reason.SHAPE, detail) for name in group.names]
    counts = [(signature, len(group.names)) for signature, group in ranked]
    return Collection(chosen.names, chosen.matrix.rows(), counts, faults, stray)


def signature_difference(found: Signature, expected: Signature) -> str:
    """The first thing that differs between two signatures, naming the key."""
    shapes, wanted = dict(found.shapes), dict(expected.shapes)
    for key in [*wanted, *shapes]:
        if shapes.get(key) != wanted.get(key):
            shape = f"has shape {shapes[key]}" if key in shapes else "is not there"
            return f"'{key}' {shape}, expected {wanted.get(key, 'no such key')}"
    return f"{found.heads} heads, expected {expected.heads}"
