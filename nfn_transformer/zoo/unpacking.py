"""Archives of array zoos, unpacked once into the cache folder beside them."""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from lzma import LZMAError
from pathlib import Path

from nfn_transformer.atomic_files import permissions
from nfn_transformer.errors import ZooError
from nfn_transformer.printable import printable, quoted

_SUFFIXES = (".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar")

WANTED = ("weights.npy", "layout.csv", "metrics.csv.gz", "metrics.csv")
"""Names of the files that are unpacked."""

_MOST_BYTES = 64 * 2**30
_MOST_MEMBERS = 100_000
_CHUNK = 4 * 2**20
_UNLOCKED_SECONDS = 5  # far longer than a new folder is without its lock
_PART = re.compile(r"[\w][\w .-]{0,100}")


def is_archive(path: Path) -> bool:
    """Return whether a path is a file with the name of a tar archive."""
    return path.name.endswith(_SUFFIXES) and path.is_file()


def unpacked(path: Path) -> Path:
    """Return the folder with the files WANTED of a tar archive; unpack them where this was not done before.

    The folder appears when it is whole. Links and other members are left out.

    Raises:
        ZooError: the archive is damaged, holds none of the files or too many bytes, or no folder can be written.
    """
    status = path.stat()
    stamp = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:8]
    name = f"{path.name}-{stamp}"
    folders = [path.parent / ".zoo_cache"]
    with suppress(RuntimeError):  # a user without a home
        cache = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache")
        zoo = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
        folders.append(cache / "nfn_transformer" / zoo)
    for folder in folders:
        if (folder / name).is_dir():
            return folder / name
    problems = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder, path.name)
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=folder))
        except OSError as error:
            problems.append(f"{folder}: {error.strerror or error}")
            continue
        try:
            with _locked(temporary):
                _unpack(path, temporary, folder / name)
                temporary.chmod(permissions(0o777))
                os.replace(temporary, folder / name)
        except (tarfile.TarError, LZMAError, OSError, EOFError, ValueError, zlib.error) as error:
            if (folder / name).is_dir():  # another process was faster
                return folder / name
            raise ZooError(f"{path}: cannot be unpacked: {printable(str(error))}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder / name
    raise ZooError(f"{path}: no folder to unpack it into ({printable('; '.join(problems))})")


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which a killed process loses.

    Raises:
        OSError: another process holds it and `wait` is False, or the folder is gone.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(*([OSError] if wait else [])):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path, archive: str) -> None:
    """Remove what killed processes have left of an archive; one that lives holds the lock of its folder."""
    for leftover in folder.glob(f".{glob.escape(archive)}-*.part"):
        with suppress(OSError), _locked(leftover, wait=False):
            if leftover.stat().st_mtime < time.time() - _UNLOCKED_SECONDS:
                shutil.rmtree(leftover)


def _unpack(path: Path, folder: Path, goal: Path) -> None:
    """Write the files WANTED of an archive into a folder, each in its own top folder.

    Raises:
        ValueError: a file is too large, or none is there; and errors of tarfile.
    """
    print(f"unpacking {path} into {goal}, once", file=sys.stderr)
    count, left = 0, _MOST_BYTES
    with tarfile.open(path, "r|*") as archive:
        for number, member in enumerate(archive):
            if number >= _MOST_MEMBERS:
                raise ValueError(f"more than {_MOST_MEMBERS} members")
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if not member.isreg() or not parts or parts[-1] not in WANTED:
                continue
            if len(parts) > 4 or not all(map(_PART.fullmatch, parts)):
                raise ValueError(f"unsafe name {quoted(member.name)}")
            left -= member.size
            if left < 0 or member.size > shutil.disk_usage(folder).free:
                raise ValueError(f"{quoted(member.name)} has {member.size} bytes, more than there is space for")
            target = folder.joinpath(*parts[-2:])
            target.parent.mkdir(exist_ok=True)
            stream = archive.extractfile(member)
            with open(target, "xb") as file:
                while stream and (content := stream.read(_CHUNK)):
                    file.write(content)
            count += 1
    if not count:
        raise ValueError(f"holds none of {', '.join(WANTED)}")
