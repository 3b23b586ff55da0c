"""Labelled images that populations are trained and tested on: scikit-learn's digits, or a folder of idx files."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.making.idx_files import find_idx, read_idx

DIGITS_TRAIN = 1000
"""Of the 1,797 digits, those that networks are trained on; the other 797 are the test images."""


@dataclass(frozen=True)
class LabelledImages:
    """Images [n, channels, height, width], float32 in [-1, 1], and their classes [n], int64."""

    images: Tensor
    labels: Tensor

    def first(self, count: int | None) -> "LabelledImages":
        """The first `count` images; all of them with None."""
        return self if count is None else LabelledImages(self.images[:count], self.labels[:count])

    def to(self, device: torch.device) -> "LabelledImages":
        """The same images on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """Train and test images of one data set, and its number of classes."""

    train: LabelledImages
    test: LabelledImages
    classes: int

    def limited(self, train: int | None, test: int | None) -> "ImageData":
        """The first images of each part, or all of them with None; the classes stay."""
        return replace(self, train=self.train.first(train), test=self.test.first(test))

    def to(self, device: torch.device) -> "ImageData":
        """The same data on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def digest(self) -> str:
        """A fingerprint of all pixels and labels."""
        parts = (self.train.images, self.train.labels, self.test.images, self.test.labels)
        found = hashlib.sha256()
        for part in parts:
            found.update(f"{tuple(part.shape)}".encode())
            found.update(part.contiguous().numpy())
        return found.hexdigest()


def digits() -> ImageData:
    """scikit-learn's 8 x 8 handwritten digits, split into 1,000 train and 797 test images.

    Pixels 0..16 become (x / 16 - 0.5) / 0.5. The order is that of the hashes of the images'
    numbers, so that the split is the same in every version of every library.
    """
    found = load_digits()
    order = sorted(range(len(found.target)), key=lambda i: hashlib.sha256(f"digits/{i}".encode()).digest())
    images = torch.as_tensor(found.images[order], dtype=torch.float32)[:, None]  # [1797, 1, 8, 8]
    both = LabelledImages((images / 16 - 0.5) / 0.5, torch.as_tensor(found.target[order], dtype=torch.int64))
    rest = LabelledImages(both.images[DIGITS_TRAIN:], both.labels[DIGITS_TRAIN:])
    return ImageData(both.first(DIGITS_TRAIN), rest, classes=10)


def idx_folder(folder: Path) -> ImageData:
    """Images in MNIST's format: `train-` and `t10k-` `images-idx3-ubyte` and `labels-idx1-ubyte`, or with `.gz`.

    Pixels 0..255 become (x / 255 - 0.5) / 0.5.

    Raises:
        UserError: the folder is not there.
        ZooError: a file is missing, is not what its name says, or does not fit the others.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    train, test = _labelled(folder, "train"), _labelled(folder, "t10k")
    sizes = [tuple(part.images.shape[2:]) for part in (train, test)]
    if sizes[0] != sizes[1]:
        raise ZooError(f"{folder}: train images are {sizes[0]} pixels, test images {sizes[1]}")
    return ImageData(train, test, classes=int(torch.cat([train.labels, test.labels]).max()) + 1)


def _labelled(folder: Path, part: str) -> LabelledImages:
    images_path = find_idx(folder, f"{part}-images-idx3-ubyte")
    labels_path = find_idx(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ZooError(f"{labels_path}: {len(labels)} labels, but {images_path.name} has {len(images)} images")
    pixels = images[:, None].to(torch.float32)  # [n, 1, height, width]
    return LabelledImages((pixels / 255 - 0.5) / 0.5, labels.to(torch.int64))
