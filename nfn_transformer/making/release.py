"""Writing a zoo in the release's layout: metadata/<dataset>.csv and <dataset>/<run>_<epoch>_<accuracy>.pt.

The zoo is a folder or a zip with one folder in it; either appears whole, at the end, or not at all.
"""

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.making.hyperparameters import Hyperparameters

AddFile = Callable[[str, bytes], None]

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class MetadataRow:
    """A row of the metadata under the release's column names: a run's hyperparameters and one of its checkpoints."""

    optimizer: str
    w_init_std: float
    l2_regularize: float
    train_fraction: float
    dropout: float
    lr: float
    seed: int
    dataset: str
    embed_dim: int
    n_attention_heads: int
    n_layers: int
    ckpt_epoch: int
    ckpt_file: str
    test_top1_accuracy: float


def checkpoint_name(dataset: str, run_id: str, epoch: str, accuracy: float) -> str:
    """The member of a checkpoint: <dataset>/<run id>_<epoch>_<accuracy x 10000>.pt."""
    return f"{dataset}/{run_id}_{epoch}_{round(accuracy * 10_000)}.pt"


def metadata_row(settings: Hyperparameters, **others) -> MetadataRow:
    """A row from a run's hyperparameters and the other columns."""
    return MetadataRow(**asdict(settings), **others)


def checkpoint_bytes(state: dict[str, Tensor]) -> bytes:
    """What torch.save writes for a state dict of views, each tensor in a storage of its own."""
    content = io.BytesIO()
    torch.save({key: tensor.contiguous().clone() for key, tensor in state.items()}, content)
    return content.getvalue()


def metadata_bytes(rows: list[MetadataRow]) -> bytes:
    """The metadata as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(MetadataRow.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
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
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:

        def add(name: str, content: bytes) -> None:
            # A fixed time: the same networks make the same bytes.
            member = zipfile.ZipInfo(f"{path.stem}/{name}", _ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)

        yield add


@contextmanager
def _writing_folder(path: Path) -> Iterator[AddFile]:
    def add(name: str, content: bytes) -> None:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    yield add
