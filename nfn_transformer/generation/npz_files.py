"""Labelled images in a NumPy archive."""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.generation.images import ImageData
from nfn_transformer.generation.samples import MOST_CLASSES, LabelledSamples
from nfn_transformer.resources import free_bytes

_NAMES = (("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"))
# Images take a third or more of their bytes when they are packed, black ones a hundredth.
_MOST_PACKED, _UNSUSPICIOUS = 100, 64 * 2**20
_CHANNELS_LAST = (1, 3, 4)


def read_npz(path: Path) -> ImageData:
    """Read images from an `.npz` with train_images, train_labels, test_images and test_labels (or x_train, ...).

    Images are [n, height, width], [n, channels, height, width], or [n, height, width, channels] with 1, 3 or 4
    channels. Values are bytes 0..255 or floating point in [0, 1]. They become (x - 0.5) / 0.5 of values in [0, 1].

    Raises:
        UserError: the file does not exist.
        ZooError: the file is no such archive, or an array has another shape or other values.
    """
    if not path.is_file():
        raise UserError(f"--images {path}: no such file")
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            names = next((names for names in _NAMES if set(names) <= set(archive.files)), None)
            if names is None:
                present = ", ".join(archive.files) or "nothing"
                raise ZooError(f"{path}: expected arrays {', '.join(_NAMES[0])}, got {present}")
            arrays = [archive[name] for name in names]
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ZooError(f"{path}: cannot be read as a NumPy archive ({error})") from None
    train, test = (_samples(path, names[i : i + 2], *arrays[i : i + 2]) for i in (0, 2))
    shapes = [tuple(part.inputs.shape[1:]) for part in (train, test)]
    if shapes[0] != shapes[1]:
        raise ZooError(f"{path}: train images are {shapes[0]} (channels, height, width), test images {shapes[1]}")
    return ImageData(train, test, classes=int(torch.cat([train.labels, test.labels]).max()) + 1)


def _check_sizes(path: Path) -> None:
    """Check what the arrays would take before any memory is taken.

    Raises:
        ZooError: they take more than half of the free memory, or are packed as no images are.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        declared, packed = (
            sum(sizes) for sizes in zip(*((m.file_size, m.compress_size) for m in members), strict=True)
        )
        if declared > _UNSUSPICIOUS and declared > _MOST_PACKED * packed:
            raise ZooError(f"{path}: {packed} bytes that would be {declared}, expected at most {_MOST_PACKED} times")
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise ValueError("it is neither stored nor deflated")
        free = free_bytes(torch.device("cpu"))
        needed = 0
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                if dtype.hasobject:
                    raise ValueError("it holds objects")
                size = math.prod(shape) * dtype.itemsize
                if size != member.file_size - file.tell():
                    raise ZooError(f"{path}: {member.filename[:40]!r} has another size than its header says")
                # The array itself, then its copies in single precision.
                needed += size + 3 * 4 * math.prod(shape)
        if needed > free / 2:
            raise ZooError(f"{path}: needs {needed / 2**30:.1f} GiB of memory, expected at most half of the free ones")


def _samples(path: Path, names: tuple[str, ...], images: np.ndarray, labels: np.ndarray) -> LabelledSamples:
    if images.ndim not in (3, 4) or not images.size:
        raise ZooError(f"{path}: {names[0]} has shape {images.shape}, expected [n, height, width] and maybe channels")
    is_whole = labels.shape == images.shape[:1] and labels.dtype.kind in "iu"
    if not is_whole or labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise ZooError(
            f"{path}: {names[1]} is {labels.dtype} {labels.shape}, expected {len(images)} whole numbers from 0 to "
            f"{MOST_CLASSES - 1}"
        )
    scale = 255 if images.dtype == np.uint8 else 1
    if images.dtype.kind not in "uf" or not (images.min() >= 0 and images.max() <= scale):
        raise ZooError(f"{path}: {names[0]} is {images.dtype}, expected bytes, or floating point from 0 to 1")
    pixels = torch.as_tensor(np.ascontiguousarray(images, dtype=np.float32)) / scale
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[1] not in _CHANNELS_LAST and pixels.shape[3] in _CHANNELS_LAST:
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
    return LabelledSamples((pixels - 0.5) / 0.5, torch.as_tensor(labels.astype(np.int64)))
