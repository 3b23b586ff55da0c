"""Fault 16: a zoo one folder too deep is read from a zip and refused as a folder."""

import shutil

import pytest
from small_zoo import assert_same

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.reading import read_zoo


def test_16_one_folder_on_top_is_allowed(zoo, tmp_path):
    expected = read_zoo(zoo.path, "mnist", progress=False)
    shutil.copytree(zoo.path, tmp_path / "top/MNIST-Transformers")
    assert_same(expected, read_zoo(tmp_path / "top", "mnist", progress=False))
    shutil.copytree(zoo.path, tmp_path / "top/another")
    with pytest.raises(ZooError, match="data set 'mnist' is there more than once: 'MNIST-Transformers/metadata/mnist"):
        read_zoo(tmp_path / "top", "mnist", progress=False)
