"""Bytes of one checkpoint: a flat row of numbers, or a fault. Nothing is ever executed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from nfn_transformer.weights.state_dicts import (
    flatten_state_dict,
    is_known_key,
    required_keys,
    row_length,
    unflatten_rows,
)
from nfn_transformer.zoo.faults import Fault, Reason, Shapes
from nfn_transformer.zoo.torch_file import load_torch_file

# Types that PyTorch can convert to float32; of its smaller and packed types some cannot even be copied.
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Outcome:
    """Content of a checkpoint's bytes."""

    fault: Fault | None
    """reason for leaving it out, or None"""
    unknown: tuple[str, ...] = ()
    """keys that no zoo of this architecture has"""
    shapes: Shapes = ()
    """without a fault its known keys and their shapes, in the canonical order"""
    row: numpy.ndarray | None = None
    """without a fault its numbers, float32 [row length]"""


def read_checkpoint(name: str, content: bytes) -> Outcome:
    """Return the outcome of reading a checkpoint, whatever its bytes are.

    Args:
        name: file name, for the fault.
        content: the file that `torch.save` wrote.
    """
    try:
        state = load_state_dict(content)
    except ValueError as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    known = {key: value for key, value in state.items() if isinstance(key, str) and is_known_key(key)}
    unknown = tuple(_key_name(key) for key in state if key not in known)
    required = required_keys(known)
    absent = [key for key in required if key not in known]
    if absent:
        return Outcome(Fault(name, Reason.MISSING_KEY, _first(absent, "is missing")), unknown)
    for key in required:
        if problem := _tensor_problem(known[key]):
            return Outcome(Fault(name, Reason.UNREADABLE, f"'{key}' {problem}"), unknown)
    shapes = {key: tuple(known[key].shape) for key in required}
    # A tensor may be a view that repeats few numbers, so a small file could claim any size.
    if row_length(shapes) > len(content):
        detail = f"claims {row_length(shapes)} numbers, more than a file of {len(content)} bytes can hold"
        return Outcome(Fault(name, Reason.UNREADABLE, detail), unknown)
    row = torch.empty(row_length(shapes))
    with torch.no_grad():
        flatten_state_dict(known, shapes, row)
    # Several times faster than torch's own, and this is done for every checkpoint.
    if numpy.isfinite(row.numpy()).all():
        return Outcome(None, unknown, tuple(shapes.items()), row.numpy())
    bad = {key: part for key, part in unflatten_rows(row[None], shapes).items() if not torch.isfinite(part).all()}
    kind = "NaN" if torch.isnan(next(iter(bad.values()))).any() else "Inf"
    return Outcome(Fault(name, Reason.NOT_FINITE, _first(list(bad), f"holds {kind}")), unknown)


def load_state_dict(content: bytes) -> Mapping:
    """Return the mapping in a checkpoint's bytes, which `torch_file.load_torch_file` checks and loads.

    Raises:
        ValueError: the bytes are damaged, hold anything but tensors and plain containers, or no mapping.
    """
    state = load_torch_file(content)
    if not isinstance(state, Mapping):
        raise ValueError(f"holds a {type(state).__name__}, expected a state dict")
    return state


def _key_name(key: object) -> str:
    # The text of anything but a small key could be of any length, or not to be had at all.
    if isinstance(key, str):
        return key
    return str(key) if isinstance(key, int) and key.bit_length() <= 64 else f"({type(key).__name__})"


def _first(keys: list[str], problem: str) -> str:
    more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"'{keys[0]}' {problem}{more}"


def _tensor_problem(value: object) -> str | None:
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, expected a tensor"
    if value.is_nested:
        return "is a nested tensor, expected plain floating point"
    if value.layout != torch.strided or value.dtype not in _PRECISIONS or value.device.type != "cpu":
        return f"is a {value.layout} tensor of {value.dtype} on {value.device.type}, expected plain floating point"
    return None
