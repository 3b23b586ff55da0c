"""Bytes of one checkpoint: a flat row of numbers, or a fault. Nothing is ever executed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.state_dicts import (
    flatten_state_dict,
    required_keys,
    row_length,
    unflatten_rows,
)
from nfn_transformer.zoo.containers import INDEX_SUFFIXES, find_network, is_safetensors, read_safetensors, read_shares
from nfn_transformer.zoo.faults import Fault, Reason, Shapes
from nfn_transformer.zoo.recognition import UNKNOWN_FAMILY, recognize
from nfn_transformer.zoo.sources import MAX_FILE_BYTES
from nfn_transformer.zoo.torch_file import load_torch_file

# Types that PyTorch can convert to float32; of its smaller and packed types some cannot even be copied.
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_LFS_START = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Outcome:
    """Content of a checkpoint's bytes."""

    fault: Fault | None
    """reason for leaving it out, or None"""
    unknown: tuple[str, ...] = ()
    """keys of tensors that no zoo of this architecture has"""
    entries: tuple[str, ...] = ()
    """keys of entries that are no tensors"""
    form: str = ""
    """how its keys are written, where not plainly; see `containers.NetworkState`"""
    shapes: Shapes = ()
    """without a fault its known keys and their shapes, in the canonical order"""
    row: numpy.ndarray | None = None
    """without a fault its numbers, float32 [row length]"""
    state: Mapping[str, Tensor] | None = None
    """of a file that is too large for a row: its tensors by key, which stay in the file until they are used"""
    facts: tuple[tuple[str, Any], ...] = ()
    """fields of `NetworkSpec` that the file tells, by name"""
    family: str = NetworkSpec.family
    """name of the network's family, where a listing's reader reads several"""
    label: str | None = None
    """label that the file tells, as text"""
    is_chosen: bool = True
    """False for a sound checkpoint that a condition on its content leaves out"""


def read_checkpoint(
    name: str, content: bytes, weights_key: str | None = None, read_beside: Callable[[str], bytes] | None = None
) -> Outcome:
    """Return the outcome of reading a checkpoint, whatever its bytes are.

    Args:
        name: file name, for the fault; that of an index tells so.
        content: the file, as `torch.save` or safetensors write it.
        weights_key: see `containers.find_network`.
        read_beside: returns the content of a file in the same folder, for an index of several files.
    """
    size = len(content)
    loaded: Mapping
    try:
        if name.endswith(INDEX_SUFFIXES) and read_beside is not None:
            loaded, size = read_shares(content, read_beside, load_state_dict)
        else:
            loaded = read_safetensors(content) if is_safetensors(content) else load_state_dict(content)
        network = find_network(loaded, weights_key)
    except ValueError as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    known = network.known
    unknown = tuple(key_name(key) for key, value in network.unknown.items() if isinstance(value, Tensor))
    entries = tuple(key_name(key) for key, value in network.unknown.items() if not isinstance(value, Tensor))

    def faulty(reason: Reason, detail: str, kind: str = "") -> Outcome:
        return Outcome(Fault(name, reason, detail, kind), unknown, entries, network.form)

    required = required_keys(known)
    absent = [key for key in required if key not in known]
    if absent:
        # One that is held a million times is looked into once.
        inner = {id(value): value for value in network.unknown.values() if isinstance(value, Mapping)}
        kind = "" if known else next(filter(None, map(recognize, [network.unknown, *inner.values()])), UNKNOWN_FAMILY)
        return faulty(Reason.MISSING_KEY, _first(absent, "is missing"), kind)
    for key in required:
        if problem := tensor_problem(known[key]):
            return faulty(Reason.UNREADABLE, f"'{key}' {problem}")
    tensors: dict[str, Tensor] = {key: known[key] for key in required}  # type: ignore[misc] # checked above
    if problem := oversized(tensors, size):
        return faulty(Reason.UNREADABLE, problem)
    row, problem = row_of(tensors)
    if row is None:
        return faulty(Reason.NOT_FINITE, problem)
    shapes = tuple((key, tuple(tensor.shape)) for key, tensor in tensors.items())
    return Outcome(None, unknown, entries, network.form, shapes, row)


def oversized(tensors: Mapping[str, Tensor], size: int) -> str:
    """Return why tensors are no content of a file of `size` bytes; nothing where they can be.

    A tensor may be a view that repeats few numbers, so a small file could claim any size.
    """
    count = row_length({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    if count <= size or (_own_numbers(tensors) <= size and 4 * count <= MAX_FILE_BYTES):
        return ""
    return f"claims {count} numbers, more than a file of {size} bytes can hold"


def row_of(tensors: Mapping[str, Tensor]) -> tuple[numpy.ndarray | None, str]:
    """Return the numbers of a state dict, float32 [row length]; None and the key where they are not finite."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    row = torch.empty(row_length(shapes))
    with torch.no_grad():
        flatten_state_dict(tensors, shapes, row)
    # Several times faster than torch's own, and this is done for every checkpoint.
    if numpy.isfinite(row.numpy()).all():
        return row.numpy(), ""
    bad = {key: part for key, part in unflatten_rows(row[None], shapes).items() if not torch.isfinite(part).all()}
    is_nan = torch.isnan(next(iter(bad.values()))).any()
    return None, _first(list(bad), f"holds {'NaN' if is_nan else 'Inf'}")


def _own_numbers(tensors: Mapping[str, Tensor]) -> int:
    """Return how many numbers tensors claim, each counted once where blocks share it."""
    numbers = {
        (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.stride(), tensor.shape): tensor.numel()
        for tensor in tensors.values()
    }
    return sum(numbers.values())


def load_state_dict(content: bytes) -> Mapping:
    """Return the mapping in a checkpoint's bytes, which `torch_file.load_torch_file` checks and loads.

    Raises:
        ValueError: the bytes are damaged, hold anything but tensors and plain containers, or no mapping.
    """
    if content.startswith(_LFS_START):
        raise ValueError("a Git LFS pointer, not the checkpoint itself; git lfs pull fetches it")
    state = load_torch_file(content)
    if not isinstance(state, Mapping):
        raise ValueError(f"holds a {type(state).__name__}, expected a state dict")
    return state


def key_name(key: object) -> str:
    """Return a key of a file's mapping as text, or its type."""
    # The text of anything but a small key could be of any length, or not to be had at all.
    if isinstance(key, str):
        return key
    return str(key) if isinstance(key, int) and key.bit_length() <= 64 else f"({type(key).__name__})"


def _first(keys: list[str], problem: str) -> str:
    more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"'{keys[0]}' {problem}{more}"


def tensor_problem(value: object) -> str:
    """Return why a value is no tensor that can be read; nothing where it is one."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, expected a tensor"
    if value.is_nested:
        return "is a nested tensor, expected plain floating point"
    if value.layout != torch.strided or value.dtype not in _PRECISIONS or value.device.type != "cpu":
        return f"is a {value.layout} tensor of {value.dtype} on {value.device.type}, expected plain floating point"
    return ""
