"""Sizes that files declare are bounded before memory is taken: tables, archives of arrays."""

import io
import json
import tracemalloc
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
from safetensors.torch import save_file
from small_zoo import SPEC

from nfn_transformer.errors import RunError, ZooError
from nfn_transformer.generation import npz_files
from nfn_transformer.generation.npz_files import read_npz
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.trained_predictor import load_network, save_predictor
from nfn_transformer.zoo import sources
from nfn_transformer.zoo.reading import read_zoo


def refused(path, message):
    tracemalloc.start()
    with pytest.raises(ZooError, match=message):
        read_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def packed(path, header: bytes, content_bytes: int):
    """Write an archive of four arrays of zeros, which takes a thousandth of what it declares."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train_images", "train_labels", "test_images", "test_labels"):
            with archive.open(f"{name}.npy", "w") as member:
                member.write(header)
                for _ in range(content_bytes >> 20):
                    member.write(bytes(1 << 20))


def header_of(shape: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue()


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path):
    packed(tmp_path / "bomb.npz", header_of((1 << 5, 1 << 10, 1 << 10)), 1 << 25)
    assert (tmp_path / "bomb.npz").stat().st_size < 2**18
    refused(tmp_path / "bomb.npz", r"bytes that would be 134218240, expected at most 100 times")


def test_an_array_that_declares_more_than_there_is_is_refused(tmp_path):
    packed(tmp_path / "claim.npz", header_of((1 << 20, 1 << 10, 1 << 10)), 0)
    refused(tmp_path / "claim.npz", "'train_images.npy' has another size than its header says")


def test_a_flag_that_python_does_not_know_is_an_error(tmp_path):
    packed(tmp_path / "flag.npz", header_of((2, 2, 2)), 0)
    content = bytearray((tmp_path / "flag.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 0x20
    content[6] |= 0x20
    (tmp_path / "flag.npz").write_bytes(content)
    refused(tmp_path / "flag.npz", "cannot be read as a NumPy archive")


def test_images_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(tmp_path / "images.npz", **arrays)
    assert len(read_npz(tmp_path / "images.npz").train.labels) == 20
    monkeypatch.setattr(npz_files, "free_bytes", lambda device: 1000)
    refused(tmp_path / "images.npz", "GiB of memory, expected at most half of the free")


def test_a_table_is_bounded(zoo, monkeypatch):
    size = (zoo.path / "metadata/mnist.csv").stat().st_size
    monkeypatch.setattr(sources, "MAX_TABLE_BYTES", size - 1)
    with pytest.raises(ZooError, match=f"a table of {size} bytes, expected at most {size - 1}"):
        read_zoo(zoo.path, "mnist", progress=False)
    monkeypatch.setattr(sources, "MAX_TABLE_BYTES", size)
    monkeypatch.setattr(sources, "MAX_TABLE_ROWS", 40)
    with pytest.raises(ZooError, match="a table of 41 rows, expected at most 40"):
        read_zoo(zoo.path, "mnist", progress=False)
    monkeypatch.setattr(sources, "MAX_TABLE_ROWS", 41)
    assert len(read_zoo(zoo.path, "mnist", progress=False)) == 40


def test_a_predictor_of_more_parameters_than_its_file_is_not_built(tmp_path):
    model = build_predictor(SPEC, ModelConfig("no", "mlp", "no"), seed=1)
    save_predictor(tmp_path / "best.safetensors", model, 1)
    assert load_network(tmp_path / "best.safetensors")[1] == 1
    header = {"epoch": 1, "networks": asdict(SPEC), "predictor": model.config.to_json()}
    header["predictor"]["ensemble"] = 10**9
    save_file(model.state_dict(), tmp_path / "best.safetensors", {"predictor": json.dumps(header)})
    with pytest.raises(RunError, match=r"its configuration has more parameters than the file's [\d,]+ numbers"):
        load_network(tmp_path / "best.safetensors")
