"""Tasks of labelled images: scikit-learn's digits, or a folder of idx files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.generation.idx_files import find_idx, read_idx
from nfn_transformer.generation.samples import LabelledSamples, TaskData
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.forward import ActivationDropout, image_logits, no_dropout
from nfn_transformer.weights.spec import EmbeddingSpec

DIGITS_TRAIN = 1000
"""Number of train images; the other 797 of the 1,797 digits are the test images."""


@dataclass(frozen=True)
class ImageData(TaskData):
    """Images [n, channels, height, width], float32 in [-1, 1], and their classes."""

    @property
    def label_column(self) -> str:
        """See `TaskData`."""
        return "test_top1_accuracy"

    @property
    def dtype(self) -> torch.dtype:
        """See `TaskData`."""
        return self.train.inputs.dtype

    def logits(self, inputs: Tensor, weights: TransformerWeights, dropout: ActivationDropout = no_dropout) -> Tensor:
        """See `TaskData`."""
        return image_logits(inputs, weights, dropout)

    def embedding(self, width: int, patch: int) -> EmbeddingSpec:
        """See `TaskData`; a token is a patch of `patch` pixels a side."""
        channels, rows, columns = self.train.inputs.shape[1:]
        if rows % patch or columns % patch:
            raise UserError(f"--patch {patch}: does not divide the images' {rows} x {columns} pixels")
        return EmbeddingSpec(channels, width, (patch, patch), (rows // patch) * (columns // patch))


def digits() -> ImageData:
    """Return scikit-learn's 8 x 8 handwritten digits, split into 1,000 train and 797 test images.

    Pixels 0..16 become (x / 16 - 0.5) / 0.5. The images are sorted by the hashes of their indices, so that the split
    is the same in every version of every library.
    """
    from sklearn.datasets import load_digits  # as long to import as PyTorch, and other images need it not

    bunch = load_digits()
    order = sorted(range(len(bunch.target)), key=lambda i: hashlib.sha256(f"digits/{i}".encode()).digest())
    images = torch.as_tensor(bunch.images[order], dtype=torch.float32)[:, None]  # [1797, 1, 8, 8]
    both = LabelledSamples((images / 16 - 0.5) / 0.5, torch.as_tensor(bunch.target[order], dtype=torch.int64))
    rest = LabelledSamples(both.inputs[DIGITS_TRAIN:], both.labels[DIGITS_TRAIN:])
    return ImageData(both.first(DIGITS_TRAIN), rest, classes=10)


def read_idx_folder(folder: Path) -> ImageData:
    """Read images in MNIST's format: `train-` and `t10k-` `images-idx3-ubyte` and `labels-idx1-ubyte`, or with `.gz`.

    Pixels 0..255 become (x / 255 - 0.5) / 0.5.

    Raises:
        UserError: the folder does not exist.
        ZooError: a file is missing, has another format than its name says, or does not fit the others.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    train, test = _labelled(folder, "train"), _labelled(folder, "t10k")
    sizes = [tuple(part.inputs.shape[2:]) for part in (train, test)]
    if sizes[0] != sizes[1]:
        raise ZooError(f"{folder}: train images are {sizes[0]} pixels, test images {sizes[1]}")
    return ImageData(train, test, classes=int(torch.cat([train.labels, test.labels]).max()) + 1)


def _labelled(folder: Path, part: str) -> LabelledSamples:
    images_path = find_idx(folder, f"{part}-images-idx3-ubyte")
    labels_path = find_idx(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ZooError(f"{labels_path}: {len(labels)} labels, but {images_path.name} has {len(images)} images")
    pixels = images[:, None].to(torch.float32)  # [n, 1, height, width]
    return LabelledSamples((pixels / 255 - 0.5) / 0.5, labels.to(torch.int64))
