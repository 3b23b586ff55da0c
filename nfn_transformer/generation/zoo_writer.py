"""Files of a zoo in the release's layout: metadata/<dataset>.csv and <dataset>/<run>_<epoch>_<accuracy>.pt.

A zoo is a folder, or a zip with one folder in it. Either appears whole, at the end, or not at all.
"""

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.generation.hyperparameters import Hyperparameters, ZooRun

AddFile = Callable[[str, bytes], None]

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class CheckpointEntry:
    """A checkpoint in the metadata."""

    run: ZooRun
    """Run of the checkpoint."""
    ckpt_file: str
    """Name of the file."""
    ckpt_epoch: str
    """Name of the snapshot."""
    accuracy: float
    """Test accuracy in [0, 1]."""


def checkpoint_name(dataset: str, run_id: str, epoch: str, accuracy: float) -> str:
    """Return the name of a checkpoint: <dataset>/<run id>_<epoch>_<accuracy x 10000>.pt."""
    return f"{dataset}/{run_id}_{epoch}_{round(accuracy * 10_000)}.pt"


def checkpoint_bytes(state: dict[str, Tensor]) -> bytes:
    """Return the bytes that torch.save writes for a state dict of views, each tensor in a storage of its own."""
    content = io.BytesIO()
    torch.save({key: tensor.contiguous().clone() for key, tensor in state.items()}, content)
    return content.getvalue()


def metadata_bytes(rows: Sequence[CheckpointEntry], seed: int, dataset: str, label_column: str) -> bytes:
    """Return the metadata as CSV under the release's column names.

    The hidden width of the MLPs and the epochs, which the release does not know, are columns if they differ.
    """
    runs = [row.run for row in rows]
    candidates = {"hidden": [run.architecture.hidden for run in runs], "epochs": [run.epochs for run in runs]}
    further = {name: values for name, values in candidates.items() if len(set(values)) > 1}
    settings = [field.name for field in fields(Hyperparameters)]
    sizes = ("embed_dim", "n_attention_heads", "n_layers")
    lines = []
    for number, row in enumerate(rows):
        architecture = row.run.architecture
        shared = (architecture.embed_dim, architecture.n_attention_heads, architecture.n_layers)
        more = [values[number] for values in further.values()]
        checkpoint = (row.ckpt_epoch, row.ckpt_file, round(row.accuracy, 6))
        lines.append([*astuple(row.run.settings), seed, dataset, *shared, *more, *checkpoint])
    header = [*settings, "seed", "dataset", *sizes, *further, "ckpt_epoch", "ckpt_file", label_column]
    return csv_text(header, lines).encode()


@contextmanager
def open_zoo(out: Path, scratch: Path, prefix: str | None = None) -> Iterator[AddFile]:
    """Give a function that adds a file, name and content, to the zoo at `out`, a zip if it ends in .zip.

    Args:
        out: path of the zoo.
        scratch: an empty folder on the same file system for the unfinished zoo.
        prefix: of the names in a zip; None: a folder with the zip's name.
    """
    draft = scratch / out.name
    prefix = f"{out.stem}/" if prefix is None else prefix
    with _open_zip(draft, prefix) if out.suffix == ".zip" else _open_folder(draft) as add_file:
        yield add_file
    os.rename(draft, out)


@contextmanager
def _open_zip(path: Path, prefix: str) -> Iterator[AddFile]:
    with zipfile.ZipFile(path, "w") as archive:

        def add_file(name: str, content: bytes) -> None:
            # A fixed time: the same networks make the same bytes.
            member = zipfile.ZipInfo(prefix + name, _ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content, compresslevel=9)

        yield add_file


@contextmanager
def _open_folder(path: Path) -> Iterator[AddFile]:
    def add_file(name: str, content: bytes) -> None:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    yield add_file
