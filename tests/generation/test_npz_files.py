"""Labelled images in NumPy archives."""

import numpy as np
import pytest
import torch

from nfn_transformer.errors import ZooError
from nfn_transformer.generation.npz_files import read_npz


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_arrays_are_images(tmp_path, channels_last, kind):
    bytes_ = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 6)).astype(np.uint8)
    images = bytes_ if kind is np.uint8 else bytes_ / 255
    images = images.transpose(0, 2, 3, 1) if channels_last else images
    labels = np.array([0, 1, 2, 3, 1])
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    data = read_npz(tmp_path / "a.npz")
    expected = torch.as_tensor(bytes_).float() / 255 * 2 - 1
    torch.testing.assert_close(data.train.inputs, expected)
    assert data.train.labels.tolist() == labels.tolist()
    assert data.classes == 4
    assert len(data.test.labels) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((4, 8))}, "train_images has shape"),
        ({"train_images": np.full((4, 8, 8), 7.0)}, "expected bytes, or floating point from 0 to 1"),
        ({"train_labels": np.zeros(3, dtype=int)}, "expected 4 whole numbers"),
        ({"train_labels": np.zeros(4)}, "expected 4 whole numbers"),
        ({"test_images": np.zeros((4, 9, 9))}, "test images \\(1, 9, 9\\)"),
        ({"train_images": np.full((4, 8, 8), "x")}, "expected bytes, or floating point from 0 to 1"),
        ({"train_labels": np.full(4, 1 << 40)}, "expected 4 whole numbers from 0 to 999"),
        ({"train_labels": np.array([None] * 4)}, "cannot be read as a NumPy archive"),
    ],
)
def test_faulty_arrays_are_named(tmp_path, change, message):
    arrays = {f"{part}_images": np.zeros((4, 8, 8)) for part in ("train", "test")}
    arrays |= {f"{part}_labels": np.zeros(4, dtype=int) for part in ("train", "test")}
    np.savez(tmp_path / "a.npz", **{**arrays, **change})
    with pytest.raises(ZooError, match=message):
        read_npz(tmp_path / "a.npz")
