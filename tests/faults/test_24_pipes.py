"""Fault 24: a pipe in place of a table or a checkpoint waits for a writer."""

import os

import pytest
from small_zoo import SPEC

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.reading import read_zoo


def test_24_pipes_are_refused_at_once(zoo, tmp_path):
    table = zoo.path / "metadata/mnist.csv"
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(ZooError, match=r"metadata/mnist\.csv: not a regular file"):
        read_zoo(zoo.path, "mnist", progress=False)
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(ZooError, match="neither a folder nor a file"):
        read_loose_checkpoints([tmp_path / "a.pt"], SPEC)
