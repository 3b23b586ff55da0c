"""A zoo of tiny transformers in the release's layout, made file by file, for tests to put faults in."""

import csv
import io
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec
from nfn_transformer.weights.state_dicts import state_dict_shapes
from nfn_transformer.zoo.reading import Zoo

BLOCK = BlockSpec(heads=2, width=4, key=2, value=3, hidden=5)
SPEC = TransformerSpec((BLOCK, BLOCK), FeedForwardSpec((4, 6, 3)), EmbeddingSpec(1, 4, (2, 2), 4))
WIDE = TransformerSpec((BlockSpec(2, 6, 3, 3, 7),), FeedForwardSpec((6, 4, 3)), EmbeddingSpec(1, 6, (2, 2), 4))
DEEP = TransformerSpec((BLOCK,) * 3, SPEC.classifier, SPEC.embedding)
QUERIES_BIAS = "encoder.0.attention.queries.bias"


class RunsCommand:
    """Pickled, it runs a shell command when it is loaded by anything weaker than weights_only."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def state_dict(seed: int, spec: TransformerSpec = SPEC, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A state dict of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    shapes = state_dict_shapes(spec)
    return {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in shapes.items()}


def saved(content: object) -> bytes:
    """The bytes that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class SmallZoo:
    """A zoo's folder, written row by row; `rows` is the metadata table, written by `write_table`."""

    def __init__(self, path: Path, dataset: str = "mnist", runs: int = 0, label_column: str = "test_top1_accuracy"):
        self.path, self.dataset, self.label_column = path, dataset, label_column
        self.rows: list[dict[str, str]] = []
        for folder in ("metadata", dataset):
            (path / folder).mkdir(parents=True)
        for index in range(runs):
            self.add(f"run{index:03d}", state_dict(index))
        self.write_table()

    def file(self, name: str) -> Path:
        return self.path / self.dataset / name

    def add(self, run: str, content: dict | bytes | None, epoch: str = "75", label: str = "0.5", **columns) -> str:
        """Write a checkpoint (none where `content` is None) and its row; the file's name is returned."""
        name = f"{run}_{epoch}_{len(self.rows)}.pt"
        if content is not None:
            self.file(name).write_bytes(content if isinstance(content, bytes) else saved(content))
        file = {"ckpt_epoch": epoch, "ckpt_file": f"{self.dataset}/{name}", self.label_column: label}
        self.rows.append({"optimizer": "adam", "n_attention_heads": "2", **file, **columns})
        return name

    def write_table(self, drop: str = "", encoding: str = "utf-8") -> None:
        names = [name for name in dict.fromkeys(key for row in self.rows for key in row) if name != drop]
        text = io.StringIO()
        writer = csv.DictWriter(text, names or ["ckpt_file"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows)
        (self.path / f"metadata/{self.dataset}.csv").write_text(text.getvalue(), encoding=encoding)

    def to_zip(self, path: Path, top: str = "MNIST-Transformers/", compression: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(path, "w", compression) as archive:
            # Last file first, so that nothing can rely on the order of members.
            for file in sorted(self.path.rglob("*"), reverse=True):
                if file.is_file() and ".zoo_cache" not in file.parts:
                    archive.write(file, top + file.relative_to(self.path).as_posix())
        return path


def zoo_of_three_sizes(path: Path) -> SmallZoo:
    """30 networks, in turn of SPEC, WIDE and DEEP."""
    zoo = SmallZoo(path)
    columns = (
        {"embed_dim": "4", "n_layers": "2"},
        {"embed_dim": "6", "n_layers": "1"},
        {"embed_dim": "4.0", "n_layers": "3"},
    )
    for run in range(30):
        content = state_dict(run, (SPEC, WIDE, DEEP)[run % 3])
        zoo.add(f"run{run:03d}", content, label=str((run * 7 % 30) / 30), lr=str(run), **columns[run % 3])
    zoo.write_table()
    return zoo


def assert_same(first: Zoo, second: Zoo) -> None:
    """Fail unless two zoos are equal in every field but the place they were read at, numbers bit for bit."""
    for field in fields(Zoo):
        if field.name == "origin":
            continue
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    folder = tmp_path / "user cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def zoo(tmp_path) -> SmallZoo:
    """40 sound runs of epoch 75: two faulty ones more are still within the allowed share."""
    return SmallZoo(tmp_path / "zoo", runs=40)
