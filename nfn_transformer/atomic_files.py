"""Files that are either whole or absent, texts and tables: written under a temporary name, then renamed."""

import csv
import errno
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def permissions(mode: int) -> int:
    """Return the permissions that a new file or folder of this mode has under the process' umask."""
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; results are as readable as the user's other files.
        temporary.chmod(permissions(0o666))
        os.replace(temporary, path)
    except Exception as error:
        failure = _failure_to_write(temporary, error)
        if failure is None:
            raise
        raise OSError(failure.errno, failure.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _failure_to_write(path: Path, error: Exception) -> OSError | None:
    """Return why the system refuses to write a file; None if the error has another cause.

    torch.save and safetensors raise errors of their own on a full disk: whether one more MiB fits tells.
    """
    if isinstance(error, OSError):
        return error if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) else None
    try:
        with open(path, "ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        return reason
    return None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step, as UTF-8; surrogates are escaped by backslashes."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table as CSV with lines that end in a line feed; floats keep all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table to `path` in one step, as CSV."""
    write_text(path, csv_text(header, rows))
