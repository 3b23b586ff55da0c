"""The digits and their split, and what bad idx files get."""

import gzip
import hashlib
import struct

import pytest
import torch

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.generation.idx_files import read_idx
from nfn_transformer.generation.images import digits, read_idx_folder


def _idx(shape: tuple[int, ...], content: bytes | None = None, magic: int | None = None) -> bytes:
    count = torch.Size(shape).numel()
    content = bytes(i % 10 for i in range(count)) if content is None else content
    header = 0x0800 + len(shape) if magic is None else magic
    return struct.pack(f">I{len(shape)}I", header, *shape) + content


def _write_folder(folder, **replaced: bytes) -> None:
    files = {
        "train-images-idx3-ubyte": _idx((6, 4, 4)),
        "train-labels-idx1-ubyte": _idx((6,)),
        "t10k-images-idx3-ubyte": _idx((3, 4, 4)),
        "t10k-labels-idx1-ubyte": _idx((3,)),
    }
    for name, content in {**files, **replaced}.items():
        (folder / name).write_bytes(content)


def test_the_digits_are_split_and_scaled():
    data = digits()
    assert data.train.inputs.shape == (1000, 1, 8, 8)
    assert data.test.inputs.shape == (797, 1, 8, 8)
    assert data.classes == 10
    assert data.train.inputs.min() == -1
    assert data.train.inputs.max() == 1
    assert torch.bincount(data.test.labels).min() > 60


def test_the_split_of_the_digits_never_changes():
    """The bundled zoo's accuracies are measured on these test images."""
    labels = digits().test.labels.to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(labels).hexdigest().startswith("a49c556791417e78")


def test_idx_files_are_read_and_scaled(tmp_path):
    _write_folder(tmp_path)
    data = read_idx_folder(tmp_path)
    assert data.train.inputs.shape == (6, 1, 4, 4)
    torch.testing.assert_close(data.train.inputs[0, 0, 0], (torch.arange(4.0) / 255 - 0.5) / 0.5)
    assert data.test.labels.tolist() == [0, 1, 2]
    assert data.classes == 6


def test_packed_idx_files_are_read(tmp_path):
    _write_folder(tmp_path)
    plain = read_idx_folder(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_idx_folder(tmp_path).digest() == plain.digest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, expected a header of 16"),
        (b"\x00\x00\x08", "3 bytes, expected a header of 16"),
        (_idx((6, 4, 4), magic=0x0801), "magic number 0x00000801, expected 0x00000803"),
        (_idx((6, 4, 4), magic=0x0D03), "magic number 0x00000d03, expected 0x00000803"),
        (_idx((6, 4, 4))[:-1], "expected 96 bytes for the header's \\(6, 4, 4\\), got 95"),
        (_idx((6, 4, 4)) + b"\x00", "expected 96 bytes for .*, got more"),
        (_idx((2**32 - 1,) * 3, content=b"abc"), ", got 3"),
        (_idx((0, 4, 4)), "expected 0 bytes for .*, got 0"),
    ],
)
def test_bad_idx_files_are_named(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ZooError, match=f"{path}: .*{message}"):
        read_idx(path, 3)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(_idx((6, 4, 4)), mtime=0)[:-12]])
def test_broken_packing_is_named(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ZooError, match=f"{path}: cannot be read"):
        read_idx(path, 3)


def test_a_missing_idx_file_is_named(tmp_path):
    _write_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ZooError, match=r"expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz, got t10k"):
        read_idx_folder(tmp_path)


def test_idx_files_that_do_not_fit_each_other_are_named(tmp_path):
    _write_folder(tmp_path, **{"train-labels-idx1-ubyte": _idx((5,))})
    with pytest.raises(ZooError, match="5 labels, but train-images-idx3-ubyte has 6 images"):
        read_idx_folder(tmp_path)
    _write_folder(tmp_path, **{"t10k-images-idx3-ubyte": _idx((3, 4, 5))})
    with pytest.raises(ZooError, match=r"train images are \(4, 4\) pixels, test images \(4, 5\)"):
        read_idx_folder(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--images .*nowhere: no such folder"):
        read_idx_folder(tmp_path / "nowhere")
