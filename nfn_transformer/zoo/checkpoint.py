"""Bytes of one checkpoint: a flat row of numbers, or a fault. Nothing is ever executed."""

import io
import re
import warnings
import zipfile
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

# Types that PyTorch can convert to float32; of its smaller and packed types some cannot even be copied.
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_ZIP_START = b"PK\x03\x04"


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
    """Return the mapping in a checkpoint's bytes, by `torch.load(weights_only=True)` and nothing weaker.

    Raises:
        ValueError: the bytes are damaged, hold anything but tensors and plain containers, or no mapping.
    """
    if not content:
        raise ValueError("the file is empty")
    if content.startswith(_ZIP_START):
        _check_archive(content)
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Damaged bytes make torch.load fail in more ways than it documents, and each of them means the same here.
    except Exception as error:
        raise ValueError(_why(error)) from None
    if not isinstance(state, Mapping):
        raise ValueError(f"holds a {type(state).__name__}, expected a state dict")
    return state


def _check_archive(content: bytes) -> None:
    """Check that the zip inside a checkpoint is as `torch.save` makes it.

    Raises:
        ValueError: the zip is not whole, or compressed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise ValueError("truncated or damaged: the end of its archive is not there") from None
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its archive is compressed, which torch.save never does")
    if sum(member.file_size for member in members) > len(content):
        raise ValueError("its archive claims more bytes than the file has")


def _why(error: Exception) -> str:
    # The rest of torch's message advises a weaker way to load, which is the last thing to pass on.
    unsafe = re.search(r"GLOBAL (\S+)", str(error))
    if unsafe:
        return f"refused, as loading it would call '{unsafe[1]}'"
    return f"not a checkpoint that torch.load reads ({type(error).__name__})"


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
