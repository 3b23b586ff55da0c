"""Cache of a zoo's checkpoints: one safetensors file, which is used only if all of it can be proved to fit."""

import glob
import hashlib
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nfn_transformer.atomic_files import replacing, write_text
from nfn_transformer.printable import printable
from nfn_transformer.weights.state_dicts import row_length
from nfn_transformer.zoo.collecting import Collection
from nfn_transformer.zoo.faults import Fault, Reason, Signature
from nfn_transformer.zoo.sources import Release

# To be raised whenever the file, or the result of reading a checkpoint, changes.
CACHE_FORMAT = 3

Content = TypeVar("Content")

# Far longer than any zoo takes to be written.
_LEFTOVER_SECONDS = 6 * 3600


class ZooCache:
    """Cache of one epoch of one data set, beside the zoo or else in the user's cache folder.

    Args:
        release: the data set; a change in any of its files makes the cache void.
        epoch: the chosen epoch.
        heads: number of heads of checkpoints whose row does not tell it; 0 if all rows do.
        condition: on the rows that are read, and other ways to read them; empty for all rows, read as usual.
    """

    def __init__(self, release: Release, epoch: str, heads: int, condition: str = ""):
        # In ASCII, as the names come from the command line and the file can hold UTF-8 only.
        self._key = f"{CACHE_FORMAT} {release.fingerprint} {release.dataset!a} {epoch!a} {heads}"
        self._key += f" {condition!a}" if condition else ""
        source = release.source
        readable = re.sub(r"[^\w.-]", "_", f"{release.dataset}-{epoch}")
        if not source.path.is_dir():
            readable = f"{source.path.name}-{readable}"
        chosen = (release.dataset, epoch, heads, condition) if condition else (release.dataset, epoch, heads)
        name = f"{readable}-{hashlib.sha256(repr(chosen).encode()).hexdigest()[:8]}.safetensors"
        self.paths = [source.cache_folder / name]
        user_folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
        with suppress(RuntimeError):  # a user without a home
            user_folder = user_folder if user_folder.is_absolute() else Path.home() / ".cache"
            # Zoos of many folders meet in this one.
            zoo = hashlib.sha256(os.fsencode(source.path.resolve())).hexdigest()[:16]
            self.paths.append(user_folder / "nfn_transformer" / zoo / name)

    def load(self, decode: Callable[[dict, Mapping[str, Tensor]], Content]) -> Content | None:
        """Return the cached checkpoints; None without a cache, or with one that is damaged or of other files.

        The tensors are those of the file, mapped into memory: the system reads them when they are touched, and drops
        them when memory is short.

        Args:
            decode: makes the checkpoints from the content and the tensors that `save` wrote.
        """
        for path in self.paths:
            # A damaged file fails in each of these ways, and means the same in all of them.
            with suppress(OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                with safe_open(path, "pt") as file:
                    header = file.metadata() or {}
                    names = sorted(file.keys()) if header.get("key") == self._key else []
                    tensors = {name: file.get_tensor(name) for name in names}
                if names and header["checksum"] == _checksum(self._key, header["content"], tensors):
                    return decode(json.loads(header["content"]), tensors)
        return None

    def folder(self) -> Path | None:
        """Return the first writable folder for the cache; None if there is none."""
        for path in self.paths:
            with suppress(OSError):
                _make_folder(path.parent)
                if os.access(path.parent, os.W_OK):
                    return path.parent
        return None

    def write_list(self, text: str) -> Path | None:
        """Write a list of faults beside the cache and return its path; None without a writable folder."""
        folder = self.folder()
        if folder is None:
            return None
        path = folder / f"{self.paths[0].stem}-faults.csv"
        try:
            write_text(path, text)
        except OSError:
            return None
        return path

    def save(self, content: dict, tensors: Mapping[str, Tensor]) -> None:
        """Write the cache to the first writable folder; warn on stderr if there is none.

        Args:
            content: what JSON can hold of the checkpoints.
            tensors: their numbers, at least one tensor.
        """
        text, tensors = json.dumps(content), dict(sorted(tensors.items()))
        header = {"key": self._key, "content": text, "checksum": _checksum(self._key, text, tensors)}
        problems = []
        for path in self.paths:
            try:
                _make_folder(path.parent)
                _remove_leftovers(path)
                with replacing(path) as temporary:
                    save_file(tensors, temporary, header)
                return
            except (OSError, SafetensorError) as error:
                problems.append(f"{path.parent}: {error}")
        print(f"warning: the zoo's cache could not be written ({printable('; '.join(problems))})", file=sys.stderr)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    # Root may write anywhere, but a read-only folder is meant to stay as it is.
    if folder.parent.is_dir() and not folder.parent.stat().st_mode & 0o222:
        raise PermissionError(f"{folder.parent} is read-only")
    folder.mkdir(parents=True, exist_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove this cache's temporary files of killed processes: the old ones, as young ones may still grow."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if part.lstat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                part.unlink()


def encode_collection(collection: Collection) -> tuple[dict, dict[str, Tensor]]:
    """Return checkpoints as content and tensors of a cache."""
    signatures = [
        {"shapes": signature.shapes, "heads": signature.heads, "count": count}
        for signature, count in collection.signatures
    ]
    faults = [[fault.name, fault.reason, fault.detail, fault.kind] for fault in collection.faults]
    content = {"names": collection.names, "signatures": signatures, "faults": faults}
    notes = {"stray_keys": collection.stray_keys, "entries": collection.entries, "forms": collection.forms}
    return {**content, **notes}, {"rows": collection.rows}


def decode_collection(content: dict, tensors: Mapping[str, Tensor]) -> Collection:
    """Return the checkpoints of a cache's content and tensors.

    Raises:
        ValueError: the two do not fit each other.
    """
    rows = tensors["rows"]
    signatures = [
        (Signature(tuple((key, tuple(shape)) for key, shape in item["shapes"]), item["heads"]), item["count"])
        for item in content["signatures"]
    ]
    names = content["names"]
    expected = (len(names), row_length(dict(signatures[0][0].shapes))) if signatures else (0, 0)
    if rows.dtype != torch.float32 or tuple(rows.shape) != expected:
        raise ValueError(f"rows {tuple(rows.shape)} of {rows.dtype}, expected {expected} of float32")
    faults = [Fault(name, Reason(reason), detail, kind) for name, reason, detail, kind in content["faults"]]
    stray, entries = ({name: tuple(keys) for name, keys in content[note].items()} for note in ("stray_keys", "entries"))
    return Collection(names, rows, signatures, faults, stray, entries, dict(content["forms"]))


def _checksum(key: str, content: str, tensors: Mapping[str, Tensor]) -> str:
    # Enough against damage, and several gigabytes a second; against forgery no checksum in the file helps.
    checksum = zlib.crc32(content.encode(), zlib.crc32(key.encode()))
    for rows in tensors.values():
        checksum = zlib.crc32(rows.numpy().data.cast("B"), checksum) if rows.numel() else checksum
    return f"{checksum:08x}"
