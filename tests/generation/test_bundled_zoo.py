"""The bundled zoo: its size, its spread, and that its accuracies are those of its networks."""

import csv
import io
import zipfile
from pathlib import Path

import pytest
import torch

from nfn_transformer.generation.images import digits
from nfn_transformer.generation.snapshots import count_correct
from nfn_transformer.weights.state_dicts import spec_from_shapes

ZOO = Path(__file__).parents[2] / "data/digits_transformers.zip"
SAMPLE = 100


def _load(archive: zipfile.ZipFile, rows: list[dict[str, str]]) -> dict[str, torch.Tensor]:
    """The stacked state dicts of these rows' checkpoints."""
    members = [io.BytesIO(archive.read(f"{ZOO.stem}/{row['ckpt_file']}")) for row in rows]
    states = [torch.load(member, weights_only=True) for member in members]
    return {key: torch.stack([state[key] for state in states]) for key in states[0]}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with zipfile.ZipFile(ZOO) as archive:
        return list(csv.DictReader(io.StringIO(archive.read(f"{ZOO.stem}/metadata/digits.csv").decode())))


def test_it_has_many_networks_of_every_accuracy(rows):
    assert ZOO.stat().st_size <= 20_000_000
    assert len(rows) >= 1500
    assert len({row["ckpt_file"] for row in rows}) == len(rows)
    assert {row["ckpt_epoch"] for row in rows} == {"75"}
    accuracies = torch.tensor([float(row["test_top1_accuracy"]) for row in rows])
    tenths = torch.histc(accuracies, 10, 0, 1)
    assert (tenths[:8] > 0.03 * len(rows)).all()
    assert accuracies.max() > 0.85


def test_recorded_accuracies_are_reproduced(rows):
    ordered = sorted(rows, key=lambda row: float(row["test_top1_accuracy"]))
    sample = ordered[:: len(ordered) // SAMPLE][:SAMPLE]
    with zipfile.ZipFile(ZOO) as archive:
        state = _load(archive, sample)
    spec = spec_from_shapes({key: tuple(tensor.shape[1:]) for key, tensor in state.items()}, heads=2)
    data = digits()
    found = count_correct(state, spec, data)
    recorded = torch.tensor([float(row["test_top1_accuracy"]) * len(data.test.labels) for row in sample]).round()
    # Sums in another order may turn one image whose two best classes are equal to the last bit.
    assert (found - recorded).abs().max() <= 1
    assert (found == recorded).sum() >= SAMPLE - 2
