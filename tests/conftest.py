"""What all tests share: a seeded generator, the bundled zoo, a small cut of it, and a short run on that."""

import csv
import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from nfn_transformer.zoo.reading import Zoo, read_zoo

REPOSITORY = Path(__file__).parent.parent

os.environ.setdefault("WANDB_MODE", "disabled")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20260)


@pytest.fixture(scope="session")
def bundled_zoo() -> Path:
    return REPOSITORY / "data/digits_transformers.zip"


@pytest.fixture(scope="session")
def small_zoo(bundled_zoo: Path, tmp_path_factory) -> Path:
    """The first 60 networks of the bundled zoo, as a folder."""
    folder = tmp_path_factory.mktemp("small_zoo")
    with zipfile.ZipFile(bundled_zoo) as archive:
        (table,) = [name for name in archive.namelist() if name.endswith("metadata/digits.csv")]
        rows = list(csv.reader(io.StringIO(archive.read(table).decode())))
        header, kept = rows[0], rows[1:61]
        (folder / "metadata").mkdir()
        (folder / "digits").mkdir()
        with open(folder / "metadata/digits.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *kept])
        top = table.removesuffix("metadata/digits.csv")
        for row in kept:
            name = row[header.index("ckpt_file")]
            (folder / name).write_bytes(archive.read(top + name))
    return folder


@pytest.fixture(scope="session")
def small(small_zoo: Path) -> Zoo:
    """The small cut, read."""
    return read_zoo(small_zoo, "digits", progress=False)
