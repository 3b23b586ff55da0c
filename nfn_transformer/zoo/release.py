"""One data set of a zoo as it is released: its metadata table and its checkpoints, indexed by file name."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.printing import printable, quoted
from nfn_transformer.zoo.sources import FolderSource, Source, UnreadableFile, ZipSource

# The word vectors that all runs of a text zoo share.
_NO_CHECKPOINT = "embedding.pt"


@dataclass(frozen=True)
class Release:
    """One data set of a zoo.

    Fields: source, where the files lie; dataset, its name; metadata, the content of its table;
    metadata_name, that table's path within the source; checkpoints, file name -> path within the source;
    fingerprint, hexadecimal text that changes when any of these files does.
    """

    source: Source
    dataset: str
    metadata: bytes
    metadata_name: str
    checkpoints: dict[str, str]
    fingerprint: str


@contextmanager
def open_release(path: Path, dataset: str) -> Iterator[Release]:
    """Open a data set of the zoo at `path`: a folder, or a zip that may have one top folder.

    Raises:
        ZooError: nothing is there, the zip is damaged, there is no such data set, or it has no checkpoints.
    """
    if not os.path.exists(path):
        raise ZooError(f"{path}: no such file or folder; expected a zoo's folder or zip")
    source: Source = FolderSource(path) if path.is_dir() else ZipSource(path)
    try:
        yield _release(source, dataset)
    finally:
        source.close()


def _release(source: Source, dataset: str) -> Release:
    table = _metadata_name(source, dataset)
    try:
        metadata = source.read(table)
    except UnreadableFile as error:
        raise ZooError(f"{source.path}: {printable(f'{table}: {error}')}") from None
    top = table.removesuffix(f"metadata/{dataset}.csv")
    stamps = {name: stamp for name, stamp in source.files(top + dataset).items() if is_checkpoint(name)}
    if not stamps:
        raise ZooError(
            f"{source.path}: no checkpoints; looked for .pt files under {quoted(f'{top}{dataset}/')}, "
            f"and the zoo holds {_listed(source.entries())}"
        )
    fingerprint = hashlib.sha256(repr((source.stamp(), metadata, sorted(stamps.items()))).encode())
    return Release(source, dataset, metadata, table, _index(stamps), fingerprint.hexdigest())


def _metadata_name(source: Source, dataset: str) -> str:
    tables = [name for name in source.metadata_tables() if not _is_hidden(name)]
    matching = [name for name in tables if name.rsplit("/", 1)[-1] == f"{dataset}.csv"]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ZooError(f"{source.path}: data set {quoted(dataset)} is there more than once: {_listed(matching)}")
    if tables:
        known = sorted(name.rsplit("/", 1)[-1].removesuffix(".csv") for name in tables)
        there = f"there are the data sets {_listed(known)}"
    else:
        there = f"there are no metadata tables at all; the zoo holds {_listed(source.entries())}"
    raise ZooError(
        f"{source.path}: no data set {quoted(dataset)}; looked for {quoted(f'metadata/{dataset}.csv')}, and {there}"
    )


def is_checkpoint(name: str) -> bool:
    """Whether a path within a zoo is that of a run's checkpoint."""
    return name.endswith(".pt") and not _is_hidden(name) and name.rsplit("/", 1)[-1] != _NO_CHECKPOINT


def _is_hidden(name: str) -> bool:
    # Archives made on a Mac carry `__MACOSX/` and `._NAME` twins of every file.
    parts = name.split("/")
    return parts[-1].startswith(".") or parts[0] == "__MACOSX"


def _index(names: dict[str, str]) -> dict[str, str]:
    index: dict[str, str] = {}
    # Of two files with one name the one least deep is the release's own; the other is a copy.
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        index.setdefault(name.rsplit("/", 1)[-1], name)
    return index


def _listed(names: list[str], most: int = 20) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(quoted(name) for name in names[:most]) + more
