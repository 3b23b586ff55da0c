"""A network's state dict inside what training frameworks save: containers, prefixes of wrappers, and other entries."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from nfn_transformer.printable import quoted
from nfn_transformer.weights.state_dicts import is_known_key

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")

USUAL_NAMES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Names of the trained weights in training checkpoints, the most telling first."""

_PART = re.compile(r"(?<=\.)(?:embedding|encoder|classifier)\.")
_POINT = re.compile(r"\.")
_LONGEST_KEY = 500
_DEPTH = 3
_MOST_LISTED = 10
LARGEST_INDEX = 2**24
"""Bytes of an index of files."""


@dataclass(frozen=True)
class NetworkState:
    """A network's entries in a file."""

    known: Mapping[str, object]
    """key of this project's networks -> value"""
    unknown: Mapping[object, object]
    """the other keys beside them"""
    form: str = ""
    """how the keys were written, where not plainly; as "under 'state_dict', after 'module.'" """


def find_network(content: Mapping, weights_key: str | None = None) -> NetworkState:
    """Return the network in a file's mapping.

    Args:
        content: the mapping that the file holds.
        weights_key: key of the state dict, or prefix of its keys; None finds the only network, or the usual one.

    Raises:
        ValueError: there is no such key, or there are several networks and none has a usual name.
    """
    networks = dict(_networks(content, (), _DEPTH, set()))
    if weights_key is not None:
        chosen = {path: state for path, state in networks.items() if weights_key in _names(path)}
        inside = {path: state for path, state in chosen.items() if path[-1].rstrip(".") in (*USUAL_NAMES, weights_key)}
        if len(chosen) != 1 and len(inside) == 1:
            chosen = inside
        if len(chosen) != 1:
            holds = ", ".join(_path_text(path) for path in list(networks)[:_MOST_LISTED]) or "none"
            raise ValueError(
                f"--weights_key {weights_key}: expected one network there, got {len(chosen)}; it holds {holds}"
            )
        ((path, state),) = chosen.items()
    elif () in networks or not networks:
        return networks.get((), NetworkState({}, content))
    elif len(networks) == 1:
        ((path, state),) = networks.items()
    else:
        usual = [path for name in USUAL_NAMES for path in networks if name in _names(path)]
        if not usual:
            listed = ", ".join(_path_text(path) for path in list(networks)[:_MOST_LISTED])
            raise ValueError(f"holds {len(networks)} networks: {listed}; --weights_key NAME chooses one")
        path, state = usual[0], networks[usual[0]]
    others = len(networks) - 1
    form = _path_text(path) + (f" ({others} other networks in the file)" if others else "")
    return NetworkState(state.known, state.unknown, form)


def _names(path: tuple[str, ...]) -> tuple[str, ...]:
    return (*path, *(part.rstrip(".") for part in path))


def _path_text(path: tuple[str, ...]) -> str:
    parts = [f"after {quoted(part)}" if part.endswith(".") else f"under {quoted(part)}" for part in path]
    return ", ".join(parts) or "at the top"


def _networks(content: Mapping, path: tuple[str, ...], depth: int, seen: set[int]):
    """Yield path and network of each state dict in a mapping; parts of a path that end in a point are prefixes.

    A mapping that is held twice, which `seen` knows, is looked into once: a small file could hold it a million times.
    """
    known = {key: value for key, value in content.items() if isinstance(key, str) and is_known_key(key)}
    if len(known) == len(content):
        if known:
            yield path, NetworkState(known, {})
        return
    prefixes: dict[str, dict[str, object]] = {}
    rest: dict = {}
    for key, value in content.items():
        if isinstance(key, str) and key in known:
            continue
        starts = _PART.finditer(key) if isinstance(key, str) and len(key) <= _LONGEST_KEY else ()
        start = next((match.start() for match in starts if is_known_key(str(key)[match.start() :])), 0)
        if start:
            prefixes.setdefault(str(key)[:start], {})[str(key)[start:]] = value
        else:
            rest[key] = value
    if known:
        yield path, NetworkState(known, rest)
    # Each key tells the networks beside it: to ask each network for its keys takes hours in a hostile file.
    beside: dict[str, dict[object, object]] = {prefix: {} for prefix in prefixes}
    for key, value in rest.items() if prefixes else ():
        starts = _POINT.finditer(key, 0, _LONGEST_KEY) if isinstance(key, str) else ()
        for prefix in [str(key)[: match.end()] for match in starts]:
            if prefix in beside:
                beside[prefix][key] = value
    for prefix, entries in prefixes.items():
        alone = not known and len(prefixes) == 1
        yield (*path, prefix), NetworkState(entries, rest if alone else beside[prefix])
    if depth:
        for key, value in rest.items():
            if isinstance(key, str) and isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                yield from _networks(value, (*path, key), depth - 1, seen)


def is_safetensors(content: bytes) -> bool:
    """Return if bytes begin like a safetensors file: the length of a header in JSON, then the header."""
    length = int.from_bytes(content[:8], "little")
    return 2 <= length <= len(content) - 8 and content[8:9] == b"{"


def read_safetensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, sorted by key: such files keep no order, and the library none twice.

    Raises:
        ValueError: the file is damaged, or holds types that PyTorch lacks.
    """
    try:
        return dict(sorted(load_safetensors(content).items()))
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"not a safetensors file that can be read ({type(error).__name__})") from None


def parse_index(index: bytes) -> dict[str, str]:
    """Return key -> name of the file beside the index that holds the key's tensor.

    Raises:
        ValueError: the content is no such index, or names a file elsewhere.
    """
    try:
        weight_map = json.loads(index)["weight_map"] if len(index) < LARGEST_INDEX else None
    except (ValueError, KeyError, TypeError, RecursionError):
        weight_map = None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ValueError('not an index of files: expected {"weight_map": {KEY: FILE}}')
    for file in dict.fromkeys(weight_map.values()):
        if "/" in file or "\\" in file or "\0" in file or not file.endswith((".safetensors", ".bin")):
            raise ValueError(f"its index names {quoted(file[:100])}, expected a .safetensors or .bin file beside it")
    return weight_map


def read_shares(
    index: bytes, read: Callable[[str], bytes], load: Callable[[bytes], Mapping]
) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of files that an index names, sorted by key, and the bytes of all of them.

    Args:
        index: content of NAME.safetensors.index.json: {"weight_map": {key: file name}}.
        read: returns the content of a file beside the index.
        load: returns the mapping in the content of a file that is no safetensors file.

    Raises:
        ValueError: the index or a file is damaged, or a tensor is not where the index says.
    """
    weight_map = parse_index(index)
    tensors: dict[str, Tensor] = {}
    size = 0
    for file in dict.fromkeys(weight_map.values()):
        content = read(file)
        size += len(content)
        held = load(content) if file.endswith(".bin") else read_safetensors(content)
        wanted = [key for key, file_of_key in weight_map.items() if file_of_key == file]
        if lacking := [key for key in wanted if key not in held]:
            raise ValueError(f"{quoted(lacking[0][:100])} is not in {quoted(file)}, where the index says")
        tensors.update({key: held[key] for key in wanted})
    return dict(sorted(tensors.items())), size
