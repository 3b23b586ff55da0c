"""Files in idx format, that of MNIST: a magic number, the sizes, then one unsigned byte per number.

The header is not trusted: it must describe exactly the bytes that follow.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nfn_transformer.errors import ZooError

_UNSIGNED_BYTE = 8


def find_idx(folder: Path, name: str) -> Path:
    """Return the path of `name` or `name.gz` in a folder.

    Raises:
        ZooError: neither exists.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    present = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise ZooError(f"{folder}: expected {name} or {name}.gz, got {present}")


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of unsigned bytes: uint8 with this many dimensions, none of them empty.

    Raises:
        ZooError: the file cannot be read, has another magic number, or another size than its header says.
    """
    magic = _UNSIGNED_BYTE << 8 | dimensions
    header_size = 4 + 4 * dimensions
    content = b""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(header_size)
            if len(header) == header_size and struct.unpack(">I", header[:4])[0] == magic:
                shape = struct.unpack(f">{dimensions}I", header[4:])
                # One byte more than expected tells a file that is too long, however long it unpacks to.
                content = _read_up_to(file, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ZooError(f"{path}: cannot be read ({error})") from None
    if len(header) < header_size:
        raise ZooError(f"{path}: {len(header)} bytes, expected a header of {header_size}")
    if header[:4] != magic.to_bytes(4, "big"):
        raise ZooError(f"{path}: magic number 0x{header[:4].hex()}, expected 0x{magic:08x}")
    if len(content) != math.prod(shape) or not content:
        size = "more" if len(content) > math.prod(shape) else str(len(content))
        raise ZooError(f"{path}: expected {math.prod(shape)} bytes for the header's {shape}, got {size}")
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())


def _read_up_to(file, size: int) -> bytes:
    """Read at most `size` bytes, without allocating memory for bytes that the header only promises."""
    pieces, missing = [], size
    while missing > 0 and (piece := file.read(min(missing, 1 << 20))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
