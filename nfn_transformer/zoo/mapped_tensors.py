"""Large checkpoints, whose tensors are read from their files one by one."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nfn_transformer.printable import quoted
from nfn_transformer.weights.containers import Shape
from nfn_transformer.zoo.containers import INDEX_SUFFIXES
from nfn_transformer.zoo.torch_file import map_torch_file

_LARGEST_INDEX = 2**24


class MappedTensors(Mapping[str, Tensor]):
    """Tensors of safetensors files by key. Each is mapped into memory when it is asked for, and as long as it is used.

    Raises:
        ValueError: a file is damaged, or lacks a key.
    """

    def __init__(self, files: Mapping[str, Path]):
        self._files, shapes = dict(sorted(files.items())), dict[str, Shape]()  # such files keep no order
        for path in dict.fromkeys(files.values()):
            with _opened(path) as file:
                there = set(file.keys())
                for key in (key for key, own in files.items() if own == path):
                    if key not in there:
                        raise ValueError(f"{quoted(key[:100])} is not in {quoted(path.name)}, where the index says")
                    shapes[key] = tuple(file.get_slice(key).get_shape())
        self.shapes = dict(sorted(shapes.items()))

    def __getitem__(self, key: str) -> Tensor:
        with _opened(self._files[key]) as file:
            return file.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{quoted(path.name)}: not a safetensors file that can be read ({type(error).__name__})"
        ) from None


def map_checkpoint(path: Path) -> Mapping:
    """Return the mapping in a checkpoint of any size, whose tensors stay in its file until they are used.

    Args:
        path: safetensors file, an index of several, or what `torch.save` wrote.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors and plain containers.
    """
    if path.name.endswith(INDEX_SUFFIXES[0]):
        try:
            content = path.read_bytes() if path.stat().st_size < _LARGEST_INDEX else b""
            files = {str(key): path.parent / Path(name).name for key, name in json.loads(content)["weight_map"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError('not an index of files: expected {"weight_map": {KEY: FILE}}') from None
        return MappedTensors(files)
    with open(path, "rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:
        with _opened(path) as opened:
            return MappedTensors(dict.fromkeys(opened.keys(), path))
    saved = map_torch_file(path)
    if not isinstance(saved, Mapping):
        raise ValueError(f"holds a {type(saved).__name__}, expected a state dict")
    return saved


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return key -> shape of a state dict's tensors, without reading them from their files."""
    if isinstance(state, MappedTensors):
        return dict(state.shapes)
    return {key: tuple(tensor.shape) for key, tensor in state.items() if isinstance(tensor, torch.Tensor)}
