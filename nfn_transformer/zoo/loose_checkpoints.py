"""Checkpoints outside any zoo's table: files, folders and zips, checked against the sizes that are expected."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from nfn_transformer.errors import ZooError
from nfn_transformer.weights.checkpoint_format import (
    state_dict_shapes,
    unflatten_rows,
    weights_from_state_dict,
)
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.checkpoint import read_checkpoint
from nfn_transformer.zoo.printing import printable
from nfn_transformer.zoo.release import is_checkpoint
from nfn_transformer.zoo.sources import FolderSource, Source, UnreadableFile, ZipSource

MAX_LISTED = 10


def read_loose_checkpoints(paths: Sequence[Path], spec: TransformerSpec) -> tuple[list[str], TransformerWeights]:
    """The weights of all checkpoints that the paths name, and where each was found.

    Args:
        paths: checkpoint files, folders (every .pt below them but embedding.pt) and zips of such folders.
        spec: sizes that every network must have; heads are taken to be the spec's.

    Raises:
        ZooError: a path does not exist or holds no checkpoint, or checkpoints are unreadable or have
            other sizes; all of these are named.
    """
    names, rows, problems = [], [], []
    for path in paths:
        for name, content in _contents(path):
            outcome = read_checkpoint(name, content) if isinstance(content, bytes) else None
            if outcome is None or outcome.fault:
                problems.append(f"{name}: {content if outcome is None else outcome.fault.detail}")
            elif problem := _difference(dict(outcome.shapes), spec):
                problems.append(f"{name}: {problem}")
            else:
                names.append(name)
                rows.append(torch.from_numpy(outcome.row))
    if problems:
        more = [f"and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        listed = "\n  ".join([*(printable(problem) for problem in problems[:MAX_LISTED]), *more])
        raise ZooError(f"{len(problems)} checkpoint{'s' * (len(problems) > 1)} cannot be used:\n  {listed}")
    return names, weights_from_state_dict(unflatten_rows(torch.stack(rows), state_dict_shapes(spec)), spec)


def _difference(shapes: dict, spec: TransformerSpec) -> str | None:
    expected = state_dict_shapes(spec)
    for key, shape in expected.items():
        if key not in shapes:
            return f"missing key '{key}'"
        if shapes[key] != shape:
            return f"'{key}' has shape {shapes[key]}, expected {shape}"
    extra = [key for key in shapes if key not in expected]
    return f"'{extra[0]}' is not expected: these networks have {len(spec.blocks)} blocks" if extra else None


def _contents(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """(place, bytes) of each checkpoint, or (place, what is wrong with it)."""
    if not os.path.exists(path):
        raise ZooError(f"{path}: no such file or folder; expected a checkpoint, a folder or a zip of checkpoints")
    if path.is_file() and not _is_zip_of_checkpoints(path):
        yield str(path), _read(FolderSource(path.parent), path.name)
        return
    source: Source = FolderSource(path) if path.is_dir() else ZipSource(path)
    try:
        members = sorted(name for name in source.files("") if is_checkpoint(name))
        if not members:
            raise ZooError(f"{printable(str(path))}: no checkpoints; looked for .pt files in it")
        for member in members:
            yield f"{path}/{member}", _read(source, member)
    finally:
        source.close()


def _read(source: Source, name: str) -> bytes | str:
    try:
        return source.read(name)
    except UnreadableFile as error:
        return str(error)


def _is_zip_of_checkpoints(path: Path) -> bool:
    """Whether a file is a zip that `torch.save` did not write: a checkpoint is a zip as well, of any ending."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.rsplit("/", 1)[-1] != "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
