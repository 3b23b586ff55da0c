"""Files of a zoo: a folder or a zip, the table and the checkpoints of one data set, and bounds on what is read."""

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, Self, cast

from nfn_transformer.bundled import find_bundled
from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.printable import printable, quoted

# Far above any checkpoint or metadata file of a zoo, and far below what would fill the memory.
MAX_FILE_BYTES = 256 * 2**20

# Far above the tables of zoos, which have at most a few rows for each checkpoint. A row takes about 3 KiB of memory.
MAX_TABLE_ROWS = 250_000
MAX_TABLE_BYTES = 64 * 2**20

DAMAGE = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error)
"""Errors of reading a damaged file or member of a zip, after it was opened."""

_ENCRYPTED = 0x1 | 0x40


SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".safetensors.index.json", ".bin.index.json")
"""Endings of checkpoints' names; an index names the files that share a network's tensors out."""


class UnreadableFile(Exception):
    """A file of the zoo cannot be read; the message says why."""


class TooLargeFile(UnreadableFile):
    """A file of the zoo is larger than those that are read as a whole."""


class NoReleaseError(ZooError):
    """A path holds no data set in the layout of docs/zoo_format.md; one of `zoo.formats` may recognise it."""


class Source(Protocol):
    """Files by relative path, written with slashes."""

    path: Path
    """the folder or the zip"""
    stamp: str
    """text that changes when the source as a whole does; empty where its files' stamps suffice"""
    cache_folder: Path
    """folder for caches of this source"""

    @property
    def metadata_tables(self) -> list[str]:
        """Files `metadata/NAME.csv`; one top folder is allowed, as in `TOP/metadata/NAME.csv`."""
        ...

    def entries(self) -> list[str]:
        """Return the names at the top, for messages."""
        ...

    def files(self, folder: str) -> dict[str, str]:
        """Return path -> stamp of the files anywhere under `folder`, all of them for "".

        A stamp changes when its file does.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            UnreadableFile: the file cannot be read, or is larger than MAX_FILE_BYTES.
        """
        ...

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        ...

    def open(self, name: str, most: int | None = None) -> BinaryIO:
        """Open a file, to be read bit by bit where it may be large.

        Raises:
            UnreadableFile: the file cannot be read, or has more than `most` bytes, by default MAX_FILE_BYTES.
        """
        ...

    def close(self) -> None:
        """Close all open files."""
        ...

    def __hash__(self) -> int: ...


class FolderSource:
    """Files of a folder."""

    def __init__(self, path: Path):
        self.path, self.stamp, self.cache_folder = path, "", path / ".zoo_cache"

    @property
    def metadata_tables(self) -> list[str]:
        """See `Source`."""
        if tables := [f"metadata/{entry.name}" for entry in _scan(self.path / "metadata")]:
            return tables
        tops = sorted(entry.name for entry in _scan(self.path) if entry.is_dir() and not entry.name.startswith("."))
        return [f"{top}/metadata/{entry.name}" for top in tops for entry in _scan(self.path / top / "metadata")]

    def entries(self) -> list[str]:
        """See `Source`."""
        return sorted(entry.name for entry in _scan(self.path))

    def files(self, folder: str) -> dict[str, str]:
        """See `Source`."""
        stamps: dict[str, str] = {}
        seen: set[tuple[int, int]] = set()
        pending = deque([folder])
        links: deque[str] = deque()
        # Links come last: of a folder and a link to it, the folder is the one that is listed. None is listed twice.
        while pending or links:
            parent = pending.popleft() if pending else links.popleft()
            if (identity := _identity(self.path / parent)) in seen:
                continue
            seen.add(identity)
            for entry in _scan(self.path / parent):
                name = f"{parent}/{entry.name}" if parent else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_symlink() and _is_folder(entry):
                    links.append(name)
                elif stamp := _file_stamp(Path(entry)):
                    stamps[name] = stamp
        return stamps

    def read(self, name: str) -> bytes:
        """See `Source`."""
        try:
            with self.open(name) as file:
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise UnreadableFile(error.strerror or str(error)) from None

    def has(self, name: str) -> bool:
        """See `Source`."""
        return bool(_file_stamp(self.path / name))

    def open(self, name: str, most: int | None = None) -> BinaryIO:
        """See `Source`."""
        try:
            # A pipe would wait for a writer.
            file = open(self.path / name, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
            status = os.fstat(file.fileno())
        except OSError as error:
            raise UnreadableFile(error.strerror or str(error)) from None
        most = MAX_FILE_BYTES if most is None else most
        if stat.S_ISREG(status.st_mode) and status.st_size <= most:
            return file
        file.close()
        raise _too_large(status.st_size, most) if stat.S_ISREG(status.st_mode) else UnreadableFile("not a regular file")

    def close(self) -> None:
        """See `Source`."""


class ZipSource:
    """Members of a zip; nothing is unpacked to disk, and each member is checked before it is opened."""

    def __init__(self, path: Path):
        self.path, self.stamp, self.cache_folder = path, _file_stamp(path), path.parent / ".zoo_cache"
        if not self.stamp:
            raise ZooError(f"{path}: neither a folder nor a file; expected a zoo's folder or zip")
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise NoReleaseError(
                f"{path}: not a zip file that can be read ({error}); expected a folder or a zip"
            ) from None
        self.close = self._archive.close
        # A member without a name is no file of any zoo, and zipfile itself stumbles over it.
        named = [member for member in self._archive.infolist() if member.filename]
        self._members = {member.filename: member for member in named if not member.is_dir()}
        parts = ((name, name.split("/")) for name in self._members)
        self.metadata_tables = [name for name, path in parts if len(path) in (2, 3) and path[-2] == "metadata"]

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        # A worker process opens the zip itself: processes that share one file handle move each other's position.
        return type(self), (self.path,)

    def entries(self) -> list[str]:
        """See `Source`."""
        return sorted({name.split("/")[0] for name in self._members})

    def files(self, folder: str) -> dict[str, str]:
        """See `Source`."""
        prefix = f"{folder}/" if folder else ""
        members = (member for name, member in self._members.items() if name.startswith(prefix))
        return {member.filename: f"{member.file_size} {member.CRC}" for member in members}

    def read(self, name: str) -> bytes:
        """See `Source`."""
        try:
            with self.open(name) as file:
                return file.read()
        except DAMAGE as error:
            raise UnreadableFile(f"damaged in the zip ({error})") from None

    def has(self, name: str) -> bool:
        """See `Source`."""
        return name in self._members

    def open(self, name: str, most: int | None = None) -> BinaryIO:
        """See `Source`."""
        member = self._members[name]
        if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
            raise UnreadableFile(f"unsafe name '{name}' in the zip")
        if member.flag_bits & _ENCRYPTED:
            raise UnreadableFile("encrypted in the zip")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableFile(f"compressed with method {member.compress_type}, expected stored or deflated")
        most = MAX_FILE_BYTES if most is None else most
        if member.file_size > most:
            raise _too_large(member.file_size, most)
        try:
            return cast(BinaryIO, self._archive.open(member))
        except DAMAGE as error:
            raise UnreadableFile(f"damaged in the zip ({error})") from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError:
        return -1, -1
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file_stamp(path: Path) -> str:
    """Return size and times of a file; empty for anything else, such as a pipe or a link to nowhere."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _scan(folder: Path) -> list[os.DirEntry]:
    """Return the entries of a folder, none where it does not exist.

    Raises:
        ZooError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        name = printable(str(folder))
        raise ZooError(f"{name}: {error.strerror or error}, expected a folder that can be read") from None


def _too_large(size: int, most: int) -> UnreadableFile:
    return TooLargeFile(f"{size} bytes, more than the {most} that a zoo's file may have")


def visible_files(names: Iterable[str], suffixes: str | tuple[str, ...]) -> list[str]:
    """Return the names with a suffix, but neither hidden ones nor NO_NETWORKS.

    Archives made on a Mac carry `__MACOSX/` and `._NAME` twins of every file. Shares of a network's tensors, as
    `model-00001-of-00002.safetensors`, are no checkpoints of their own where their index is there. A
    `pytorch_model.bin` beside a `model.safetensors` is the same network.
    """
    visible = [
        name
        for name in names
        if name.endswith(suffixes)
        and not name.startswith("__MACOSX/")
        and not any(part.startswith(".") for part in name.split("/"))
        and name.rsplit("/", 1)[-1] not in NO_NETWORKS
    ]
    indices = {name.removesuffix(".index.json") for name in visible if name.endswith(".index.json")}
    indices |= {name for name in visible if name.endswith("/model.safetensors") or name == "model.safetensors"}
    if not indices:
        return visible
    own = [name for name in visible if _SHARE.sub(r".\1", name) not in indices or _SHARE.search(name) is None]
    return [name for name in own if _OLDER.sub("model.safetensors", name) not in indices or not _OLDER.search(name)]


NO_NETWORKS = (
    *("embedding.pt", "training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin"),
    "rng_state.pth",
)
"""Names of files beside checkpoints: word vectors of a text zoo, and what trainers keep to go on."""

_SHARE = re.compile(r"-\d+-of-\d+\.(safetensors|bin)$", re.ASCII)
_OLDER = re.compile(r"(?<![^/])pytorch_model\.bin(\.index\.json)?$")


@dataclass(frozen=True)
class Release:
    """One data set of a zoo."""

    source: Source
    """place of the files"""
    dataset: str
    """name of the data set"""
    metadata: bytes
    """content of the metadata table"""
    metadata_name: str
    """path of the table within the source"""
    folder: str
    """path of the checkpoints' folder within the source"""
    files: tuple[str, ...]
    """paths of the checkpoints within the source, those least deep first"""
    fingerprint: str
    """hexadecimal text that changes when any of these files does"""


@contextmanager
def open_release(path: Path, dataset: str) -> Iterator[Release]:
    """Open a data set of the zoo at `path`: a folder, or a zip that may have one top folder.

    Raises:
        ZooError: the path does not exist, the zip is damaged, the data set is not in it, or has no checkpoints.
    """
    if not os.path.exists(path):
        raise ZooError(f"{path}: no such file or folder; expected a zoo's folder or zip")
    source: Source = FolderSource(path) if path.is_dir() else ZipSource(path)
    try:
        tables = visible_files(source.metadata_tables, ".csv")
        matching = [name for name in tables if name.rsplit("/", 1)[-1] == f"{dataset}.csv"]
        if len(matching) != 1:
            raise _not_one_table(source, dataset, tables, matching)
        table = matching[0]
        try:
            with source.open(table) as file:
                metadata = file.read(MAX_FILE_BYTES)
            if len(metadata) > MAX_TABLE_BYTES:
                raise UnreadableFile(f"a table of {len(metadata)} bytes, expected at most {MAX_TABLE_BYTES}")
            if (rows := max(metadata.count(b"\n"), metadata.count(b"\r"))) > MAX_TABLE_ROWS:
                raise UnreadableFile(f"a table of {rows} rows, expected at most {MAX_TABLE_ROWS}")
        except UnreadableFile as error:
            raise ZooError(f"{path}: {printable(f'{table}: {error}')}") from None
        except DAMAGE as error:
            raise ZooError(f"{path}: {printable(f'{table}: damaged in the zip ({error})')}") from None
        folder = table.removesuffix(f"metadata/{dataset}.csv") + dataset
        stamps = source.files(folder)
        names = visible_files(stamps, SUFFIXES)
        if not names:
            raise ZooError(
                f"{path}: no checkpoints; looked for {looked_for()} under {quoted(f'{folder}/')}, "
                f"and the zoo holds {_listed(source.entries())}"
            )
        fingerprint = repr((source.stamp, metadata, sorted((name, stamps[name]) for name in names)))
        digest = hashlib.sha256(fingerprint.encode()).hexdigest()
        # Of two files with one name the one least deep is the release's own; the other is a copy.
        files = tuple(sorted(names, key=lambda name: (name.count("/"), name)))
        yield Release(source, dataset, metadata, table, folder, files, digest)
    finally:
        source.close()


def looked_for() -> str:
    """Return the endings of checkpoints' names, for messages."""
    *most, last = (suffix for suffix in SUFFIXES if suffix.count(".") == 1)
    return f"{', '.join(most)} or {last} files"


def _not_one_table(source: Source, dataset: str, tables: list[str], matching: list[str]) -> ZooError:
    """Return the error of a data set with no table or several."""
    if matching:
        return ZooError(f"{source.path}: data set {quoted(dataset)} is there more than once: {_listed(matching)}")
    if tables:
        names = sorted(name.rsplit("/", 1)[-1].removesuffix(".csv") for name in tables)
        content = f"there are the data sets {_listed(names)}"
    else:
        content = f"there are no metadata tables at all; the zoo holds {_listed(source.entries())}"
        content += "; --table FILE.csv names a table of files and scores"
    return NoReleaseError(
        f"{source.path}: no data set {quoted(dataset)}; looked for {quoted(f'metadata/{dataset}.csv')}, and {content}"
    )


def _listed(names: list[str], most: int = 20) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(quoted(name) for name in names[:most]) + more


def find_zoo(dataset: str, data_path: str | None = None) -> str:
    """Return the path of a zoo: `data_path`, else the conventional one of a data set.

    A path that does not exist stands for the zip of that name: a downloaded archive need not be unpacked. The bundled
    zoo is found by its path in a checkout from everywhere.

    Raises:
        UserError: none of the conventional paths exists.
    """
    if data_path:
        if Path(data_path).exists():
            return data_path
        zipped = find_bundled(Path(f"{data_path}.zip"))
        return str(zipped if zipped.is_file() else find_bundled(Path(data_path)))
    candidates = [f"data/{dataset}_transformer", f"data/{dataset}_transformer.zip", f"data/{dataset}_transformers.zip"]
    for candidate in candidates:
        if (path := find_bundled(Path(candidate))).exists():
            return str(path)
    raise UserError(f"--dataset {dataset}: expected a zoo at {', '.join(candidates)}, got none; --data_path names one")
