"""Large checkpoints, whose tensors are read from their files one by one."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nfn_transformer.printable import quoted
from nfn_transformer.weights.containers import Shape
from nfn_transformer.zoo.containers import INDEX_SUFFIXES, LARGEST_INDEX, parse_index
from nfn_transformer.zoo.torch_file import map_torch_file


class MappedTensors(Mapping[str, Tensor]):
    """Tensors of files by key. Each is mapped into memory when it is asked for, and as long as it is used.

    Args:
        files: key -> its file, of safetensors or, with the ending .bin, of `torch.save`.

    Raises:
        ValueError: a file is damaged, or lacks a key.
    """

    def __init__(self, files: Mapping[str, Path]):
        self._files, shapes = dict(sorted(files.items())), dict[str, Shape]()  # such files keep no order
        self._saved: dict[str, Tensor] = {}
        for path in dict.fromkeys(files.values()):
            if path.name.endswith(".bin"):
                held = {key: value for key, value in _saved_mapping(path).items() if isinstance(value, Tensor)}
                there = {key: tuple(value.shape) for key, value in held.items()}
            else:
                with _opened(path) as file:
                    held, there = {}, {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            for key in (key for key, own in files.items() if own == path):
                if key not in there:
                    raise ValueError(f"{quoted(key[:100])} is not in {quoted(path.name)}, where the index says")
                shapes[key] = there[key]
                if held:
                    self._saved[key] = held[key]
        self.shapes = dict(sorted(shapes.items()))

    def __getitem__(self, key: str) -> Tensor:
        return self.map_together([key])[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def map_together(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """Return tensors by key, those of a file in one mapping of it."""
        tensors = {key: self._saved[key] for key in keys if key in self._saved}
        files = {key: self._files[key] for key in keys if key not in tensors}
        for path in dict.fromkeys(files.values()):
            with _opened(path) as file:
                tensors |= {key: file.get_tensor(key) for key, own in files.items() if own == path}
        return {key: tensors[key] for key in keys}


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{quoted(path.name)}: not a safetensors file that can be read ({type(error).__name__})"
        ) from None


def _saved_mapping(path: Path) -> Mapping:
    """Return the mapping in a file of `torch.save`, whose tensors stay there until they are used.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors and plain containers.
    """
    try:
        saved = map_torch_file(path)
    except OSError as error:
        raise ValueError(f"{quoted(path.name)}: {error.strerror or error}") from None
    if not isinstance(saved, Mapping):
        raise ValueError(f"holds a {type(saved).__name__}, expected a state dict")
    return saved


def map_checkpoint(path: Path) -> Mapping:
    """Return the mapping in a checkpoint of any size, whose tensors stay in its file until they are used.

    Args:
        path: safetensors file, an index of several, or what `torch.save` wrote.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors and plain containers.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(LARGEST_INDEX if path.name.endswith(INDEX_SUFFIXES) else 9)
    if path.name.endswith(INDEX_SUFFIXES):
        return MappedTensors({key: path.parent / name for key, name in parse_index(start).items()})
    if start[8:] != b"{":
        return _saved_mapping(path)
    with _opened(path) as opened:
        return MappedTensors(dict.fromkeys(opened.keys(), path))


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return key -> shape of a state dict's tensors, without reading them from their files."""
    if isinstance(state, MappedTensors):
        return dict(state.shapes)
    return {key: tuple(tensor.shape) for key, tensor in state.items() if isinstance(tensor, torch.Tensor)}
