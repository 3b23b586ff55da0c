"""Checkpoints of standard transformers: the state dict in a file, and what a configuration beside it tells."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.printable import quoted
from nfn_transformer.resources import free_bytes, return_freed_memory
from nfn_transformer.weights.standard_layouts import Recognition, find_library, recognize_transformer
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import standard_shapes
from nfn_transformer.weights.state_dicts import row_length
from nfn_transformer.zoo.checkpoint import Outcome, key_name, load_state_dict, oversized, row_of, tensor_problem
from nfn_transformer.zoo.containers import INDEX_SUFFIXES, read_shares
from nfn_transformer.zoo.faults import Fault, Reason, listed
from nfn_transformer.zoo.mapped_tensors import MappedTensors, map_checkpoint, shapes_of
from nfn_transformer.zoo.network_checkpoint import find_state_dict, load_mapping
from nfn_transformer.zoo.sources import MAX_FILE_BYTES
from nfn_transformer.zoo.transformer_facts import CONFIG_FILE, CONFIG_NAMES, facts_of_config, parse_config

_MOST_KEYS, _PIECE = 20_000, 1 << 20


def read_transformer_checkpoint(
    name: str, content: bytes, weights_key: str | None = None, read_beside: Callable[[str], bytes] | None = None
) -> Outcome:
    """Return the outcome of reading a standard transformer's checkpoint; see `checkpoint.read_checkpoint`.

    A configuration in the file, and a config.json beside it, tell facts of its function.
    """
    size = len(content)
    loaded: Mapping
    try:
        if name.endswith(INDEX_SUFFIXES) and read_beside is not None:
            loaded, size = read_shares(content, read_beside, load_state_dict)
        else:
            loaded = load_mapping(content)
        state, form = find_state_dict(loaded, weights_key)
    except ValueError as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)), family=StandardTransformerSpec.family)
    try:
        facts = facts_in(loaded, read_beside)
    except SpecError as error:
        return Outcome(Fault(name, Reason.SHAPE, str(error)), family=StandardTransformerSpec.family)
    return replace(transformer_outcome(name, state, size, facts), form=form)


def facts_in(loaded: Mapping, read_beside: Callable[[str], bytes] | None) -> dict[str, Any]:
    """Return the facts in a file's mapping, and in a config.json beside the file.

    Raises:
        SpecError: a configuration is damaged, or of a network that cannot be represented exactly.
    """
    facts: dict[str, Any] = {}
    for key in CONFIG_NAMES:
        if isinstance(config := loaded.get(key), Mapping):
            facts |= facts_of_config({name: value for name, value in config.items() if isinstance(name, str)})
    try:
        content = read_beside(CONFIG_FILE) if read_beside is not None else b""
    except ValueError:  # there is none
        content = b""
    return facts | (facts_of_config(parse_config(content)) if content else {})


def recognize_state(state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[Recognition, dict[str, Any]]:
    """Return the standard transformer in a state dict, and the facts with what the numbers themselves tell.

    An output embedding that equals the words' embedding number by number is tied to it. Of networks whose heads nothing
    tells, any count that is possible is taken: their layout is the same.

    Raises:
        SpecError: see `recognize_transformer`.
    """
    shapes = shapes_of(state)
    own = facts if "heads" in facts else {**facts, "heads": 0}
    recognition = recognize_transformer(shapes, own)
    keys = {entry.roles: entry.key for entry in recognition.spec.layout}
    last = keys.get(f"head.{len(recognition.spec.head_sizes) - 2}.weight")
    words = keys.get("words")
    if words and last and shapes[words] == shapes[last] and torch.equal(state[words], state[last]):
        facts = {**facts, "tied": True}
        recognition = recognize_transformer(shapes, {**own, "tied": True})
    return recognition, dict(facts)


def transformer_outcome(name: str, state: Mapping, size: int, facts: Mapping[str, Any]) -> Outcome:
    """Return a state dict as a row of numbers, or its fault.

    Args:
        name: of the checkpoint, for the fault.
        state: key -> tensor; entries that are no tensors are named and ignored.
        size: bytes of the file.
        facts: what is told of it.
    """
    family = StandardTransformerSpec.family
    entries = _entries(state)

    def faulty(reason: Reason, detail: str) -> Outcome:
        return Outcome(Fault(name, reason, detail), entries=entries, family=family)

    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if len(tensors) > _MOST_KEYS or not all(isinstance(key, str) and len(key) < 300 for key in tensors):
        return faulty(Reason.UNREADABLE, f"{len(tensors)} tensors, expected at most {_MOST_KEYS} with names")
    for key, value in tensors.items():
        if value.dtype.is_floating_point and (problem := tensor_problem(value)):
            return faulty(Reason.UNREADABLE, f"{quoted(key)} {problem}")
    try:
        recognition, facts = recognize_state(tensors, facts)
    except SpecError as error:
        return faulty(Reason.SHAPE if tensors else Reason.MISSING_KEY, str(error))
    if recognition.unknown:
        what = f"holds tensors that {recognition.library.name} does not have: {listed(recognition.unknown)}"
        return faulty(Reason.SHAPE, what)
    own = {key: tensors[key] for key in standard_shapes(recognition.spec)}
    for key, value in own.items():
        if problem := tensor_problem(value):
            return faulty(Reason.UNREADABLE, f"{quoted(key)} {problem}")
    if problem := oversized(own, size):
        return faulty(Reason.UNREADABLE, problem)
    row, problem = row_of(own)
    if row is None:
        return faulty(Reason.NOT_FINITE, problem)
    shapes = tuple((key, tuple(tensor.shape)) for key, tensor in own.items())
    told = tuple(sorted(facts.items()))
    return Outcome(None, entries=(*entries, *recognition.left_out), shapes=shapes, row=row, facts=told, family=family)


def read_large_transformer(name: str, path: Path, weights_key: str | None = None) -> Outcome:
    """Return the outcome of reading a transformer's file of any size; its tensors stay in the file until they are used.

    Args:
        name: of the checkpoint, for the fault.
        path: safetensors file, an index of several, or what `torch.save` wrote.
        weights_key: see `find_state_dict`.
    """
    family = StandardTransformerSpec.family
    return_freed_memory()
    try:
        loaded = map_checkpoint(path)
        state, form = (loaded, "") if isinstance(loaded, MappedTensors) else find_state_dict(loaded, weights_key)
        if find_library(shapes_of(state)) is None:
            most = f"files of other networks are read up to {MAX_FILE_BYTES:,} bytes"
            raise SpecError(f"its keys are those of no library whose transformers are read, and {most}")
        recognition, facts = recognize_state(state, facts_in(loaded, partial(read_beside_path, path)))
        if recognition.unknown:
            what = f"holds tensors that {recognition.library.name} does not have: {listed(recognition.unknown)}"
            raise SpecError(what)
        shapes = standard_shapes(recognition.spec)
        needed, free = 4 * row_length(shapes), free_bytes(torch.device("cpu"))
        if needed > free:
            raise ValueError(f"has {needed // 4:,} numbers, which take {needed:,} bytes of memory; {free:,} are free")
        own = state.map_together(shapes) if isinstance(state, MappedTensors) else {key: state[key] for key in shapes}
        for key, tensor in own.items():
            if problem := tensor_problem(tensor):
                raise ValueError(f"{quoted(key)} {problem}")
    except (ValueError, OSError) as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)), family=family)
    except SpecError as error:
        return Outcome(Fault(name, Reason.SHAPE, str(error)), family=family)
    bad = next((key for key, tensor in own.items() if not _is_finite(tensor)), None)
    if bad is not None:
        return Outcome(Fault(name, Reason.NOT_FINITE, f"{quoted(bad)} holds NaN or Inf"), family=family)
    told, items = tuple(sorted(facts.items())), tuple(shapes.items())
    entries = (*_entries(state), *recognition.left_out)
    return Outcome(None, entries=entries, form=form, shapes=items, state=own, facts=told, family=family)


def _entries(state: Mapping) -> tuple[str, ...]:
    """Return the keys of entries that are no tensors."""
    is_plain = isinstance(state, MappedTensors)
    return () if is_plain else tuple(key_name(key) for key, value in state.items() if not isinstance(value, Tensor))


def _is_finite(tensor: Tensor) -> bool:
    return all(bool(torch.isfinite(piece).all()) for piece in tensor.flatten().split(_PIECE))


def read_beside_path(path: Path, name: str) -> bytes:
    """Return the content of a small file in the folder of a path.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with open(path.parent / name, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ValueError(str(error)) from None
