"""Where a zoo's files lie: a folder or a zip, both read as relative paths with a bound on their size."""

import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.printing import printable

# Far above any checkpoint or metadata file of a zoo, and far below what would fill the memory.
MAX_FILE_BYTES = 256 * 2**20

_ENCRYPTED = 0x1 | 0x40


class UnreadableFile(Exception):
    """A file of the zoo cannot be read; the message says why."""


class Source(Protocol):
    """Files by relative path, written with slashes."""

    path: Path

    def entries(self) -> list[str]:
        """Names at the top, for messages that say what is there."""
        ...

    def metadata_tables(self) -> list[str]:
        """Files `metadata/NAME.csv`; in a zip they may be in one top folder, as in `TOP/metadata/NAME.csv`."""
        ...

    def files(self, folder: str) -> dict[str, str]:
        """Files anywhere under `folder` (all of them for ""): path -> a stamp that changes when the file does."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            UnreadableFile: it cannot be read, or is larger than MAX_FILE_BYTES.
        """
        ...

    def stamp(self) -> str:
        """Changes when the source as a whole does; empty where its files' stamps tell enough."""
        ...

    def cache_folder(self) -> Path:
        """The folder in which caches of this source belong."""
        ...

    def close(self) -> None:
        """Let go of open files."""
        ...


class FolderSource:
    """The files of a folder."""

    def __init__(self, path: Path):
        self.path = path

    def entries(self) -> list[str]:
        return sorted(entry.name for entry in _scan(self.path))

    def metadata_tables(self) -> list[str]:
        return [f"metadata/{entry.name}" for entry in _scan(self.path / "metadata") if entry.name.endswith(".csv")]

    def files(self, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        pending = [folder]
        while pending:
            inside = pending.pop()
            for entry in _scan(self.path / inside):
                name = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif stamp := _file_stamp(Path(entry)):
                    found[name] = stamp
        return found

    def read(self, name: str) -> bytes:
        try:
            with open(self.path / name, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise UnreadableFile("not a regular file")
                _check_size(status.st_size)
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise UnreadableFile(error.strerror or str(error)) from None

    def stamp(self) -> str:
        return ""

    def cache_folder(self) -> Path:
        return self.path / ".zoo_cache"

    def close(self) -> None:
        pass


def _file_stamp(path: Path) -> str:
    """Size and times of a file; empty for what is none, such as a pipe or a link to nowhere."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ZooError(
            f"{printable(str(folder))}: {error.strerror or error}, expected a folder that can be read"
        ) from None


class ZipSource:
    """The members of a zip; nothing is unpacked to disk, and each member is checked before it is opened."""

    def __init__(self, path: Path):
        self.path = path
        self._stamp = _file_stamp(path)
        if not self._stamp:
            raise ZooError(f"{path}: neither a folder nor a file; expected a zoo's folder or zip")
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ZooError(f"{path}: not a zip file that can be read ({error}); expected a folder or a zip") from None
        # A member without a name is no file of any zoo, and zipfile itself stumbles over it.
        named = [member for member in self._archive.infolist() if member.filename]
        self._members = {member.filename: member for member in named if not member.is_dir()}

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        # A worker process opens the zip itself: processes that share one file handle move each other's position.
        return type(self), (self.path,)

    def entries(self) -> list[str]:
        return sorted({name.split("/")[0] for name in self._members})

    def metadata_tables(self) -> list[str]:
        parts = ((name, name.split("/")) for name in self._members if name.endswith(".csv"))
        return [name for name, path in parts if len(path) in (2, 3) and path[-2] == "metadata"]

    def files(self, folder: str) -> dict[str, str]:
        prefix = f"{folder}/" if folder else ""
        members = (member for name, member in self._members.items() if name.startswith(prefix))
        return {member.filename: f"{member.file_size} {member.CRC}" for member in members}

    def read(self, name: str) -> bytes:
        member = self._members[name]
        _check_member(member)
        try:
            return self._archive.read(member)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error) as error:
            raise UnreadableFile(f"damaged in the zip ({error})") from None

    def stamp(self) -> str:
        return self._stamp

    def cache_folder(self) -> Path:
        return self.path.parent / ".zoo_cache"

    def close(self) -> None:
        self._archive.close()


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
        raise UnreadableFile(f"unsafe name '{name}' in the zip")
    if member.flag_bits & _ENCRYPTED:
        raise UnreadableFile("encrypted in the zip")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableFile(f"compressed with method {member.compress_type}, expected stored or deflated")
    _check_size(member.file_size)


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UnreadableFile(f"{size} bytes, more than the {MAX_FILE_BYTES} that a zoo's file may have")
