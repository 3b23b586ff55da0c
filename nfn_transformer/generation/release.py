"""Writing a zoo in the release's layout: metadata/<dataset>.csv and <dataset>/<run>_<epoch>_<accuracy>.pt.

The zoo is a folder or a zip with one folder in it; either appears whole, at the end, or not at all.
"""

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.generation.hyperparameters import Hyperparameters, Run

AddFile = Callable[[str, bytes], None]

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class MetadataRow:
    """One checkpoint: its run, the file, the name of the snapshot, and the test accuracy in [0, 1]."""

    run: Run
    ckpt_file: str
    ckpt_epoch: str
    accuracy: float


def checkpoint_name(dataset: str, run_id: str, epoch: str, accuracy: float) -> str:
    """The member of a checkpoint: <dataset>/<run id>_<epoch>_<accuracy x 10000>.pt."""
    return f"{dataset}/{run_id}_{epoch}_{round(accuracy * 10_000)}.pt"


def checkpoint_bytes(state: dict[str, Tensor]) -> bytes:
    """What torch.save writes for a state dict of views, each tensor in a storage of its own."""
    content = io.BytesIO()
    torch.save({key: tensor.contiguous().clone() for key, tensor in state.items()}, content)
    return content.getvalue()


def metadata_bytes(rows: Sequence[MetadataRow], seed: int, dataset: str, label_column: str) -> bytes:
    """The metadata as CSV under the release's column names.

    The hidden width of the MLPs and the epochs, which the release does not know, are columns where they differ.
    """
    runs = [row.run for row in rows]
    further = {"hidden": [run.architecture.hidden for run in runs], "epochs": [run.epochs for run in runs]}
    further = {name: values for name, values in further.items() if len(set(values)) > 1}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    settings = [field.name for field in fields(Hyperparameters)]
    sizes = ("embed_dim", "n_attention_heads", "n_layers")
    writer.writerow([*settings, "seed", "dataset", *sizes, *further, "ckpt_epoch", "ckpt_file", label_column])
    for number, row in enumerate(rows):
        architecture = row.run.architecture
        own = (architecture.embed_dim, architecture.n_attention_heads, architecture.n_layers)
        more = [values[number] for values in further.values()]
        checkpoint = (row.ckpt_epoch, row.ckpt_file, round(row.accuracy, 6))
        writer.writerow([*astuple(row.run.settings), seed, dataset, *own, *more, *checkpoint])
    return text.getvalue().encode()


@contextmanager
def writing_zoo(out: Path, scratch: Path) -> Iterator[AddFile]:
    """Give a function that adds a file, name and content, to the zoo at `out` (a zip where it ends in .zip).

    Args:
        scratch: an empty folder on the same file system for what is not finished.
    """
    draft = scratch / out.name
    with _writing_zip(draft) if out.suffix == ".zip" else _writing_folder(draft) as add:
        yield add
    os.rename(draft, out)


@contextmanager
def _writing_zip(path: Path) -> Iterator[AddFile]:
    with zipfile.ZipFile(path, "w") as archive:

        def add(name: str, content: bytes) -> None:
            # A fixed time: the same networks make the same bytes.
            member = zipfile.ZipInfo(f"{path.stem}/{name}", _ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content, compresslevel=9)

        yield add


@contextmanager
def _writing_folder(path: Path) -> Iterator[AddFile]:
    def add(name: str, content: bytes) -> None:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    yield add
