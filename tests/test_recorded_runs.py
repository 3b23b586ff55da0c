"""Runs and cells of commit f1b1395, recorded by data/recorded_runs/record.py, are read, resumed and known as then."""

import csv
import hashlib
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from nfn_transformer import main, predict
from nfn_transformer.grids import cells as cell_keys
from nfn_transformer.grids.cells import plan
from nfn_transformer.grids.grid_file import GridError, GridRow, read_grid
from nfn_transformer.reproduce import COMMANDS
from nfn_transformer.training.config import RunConfig

RECORDED = Path(__file__).parent / "data/recorded_runs"
PREDICTED = json.loads((RECORDED / "predicted.json").read_text())
RESUMED = json.loads((RECORDED / "resumed.json").read_text())
KEYS = json.loads((RECORDED / "keys.json").read_text())

TWO_SEEDS = ("interrupted/two_seeds/seed1", "interrupted/two_seeds/seed2")
CLOSE = {"rel": 1e-5, "abs": 1e-7}
CLOSE_AFTER_TRAINING = {"rel": 1e-4, "abs": 1e-6}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """The recorded zoos and runs, unpacked."""
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(RECORDED / "recorded.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_predictions(path: Path) -> dict[str, float]:
    return {row["file"]: float(row["predicted"]) for row in read_table(path)}


def zoo_of(run: Path) -> str:
    return json.loads((run / "config.json").read_text())["data"]["dataset"].replace("digits", "zoo")


@pytest.mark.parametrize("case", PREDICTED, ids=lambda case: "-".join([case["run"], *case["arguments"]]))
def test_a_recorded_run_gives_the_recorded_predictions(case, recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(recorded)
    arguments = case["arguments"]
    if "--split" in arguments:
        arguments = [*arguments, "--data_path", zoo_of(Path(case["run"]))]
    out = tmp_path / "predicted.csv"
    assert predict.main(["--run", case["run"], *arguments, "--device", "cpu", "--out", str(out)]) == 0
    assert read_predictions(out) == pytest.approx(case["predictions"], **CLOSE)


def check_ended(run: Path, expected: dict) -> None:
    metrics = [{name: float(value) for name, value in row.items()} for row in read_table(run / "metrics.csv")]
    assert len(metrics) == len(expected["metrics"])
    for row, expected_row in zip(metrics, expected["metrics"], strict=True):
        del row["seconds"]
        assert row == pytest.approx(expected_row, nan_ok=True, **CLOSE_AFTER_TRAINING)
    check_close(json.loads((run / "results.json").read_text()), expected["results"])
    predictions = read_predictions(run / "test_predictions.csv")
    assert predictions == pytest.approx(expected["predictions"], **CLOSE_AFTER_TRAINING)


def check_close(value, expected) -> None:
    """Compare JSON: the same keys and texts, and close numbers."""
    if isinstance(expected, dict):
        assert value.keys() == expected.keys()
        for name in expected:
            check_close(value[name], expected[name])
    elif isinstance(expected, float):
        assert value == pytest.approx(expected, **CLOSE_AFTER_TRAINING)
    else:
        assert value == expected


@pytest.mark.parametrize("name", [name for name in RESUMED if name not in TWO_SEEDS])
def test_an_interrupted_run_goes_on_to_the_recorded_end(name, recorded, tmp_path):
    run = shutil.copytree(recorded / name, tmp_path / "run")
    zoo = recorded / zoo_of(run)
    assert main.main(["--resume", str(run), "--data_path", str(zoo)]) == 0
    check_ended(run, RESUMED[name])
    assert not (run / "state.pt").exists()


def test_two_runs_that_were_killed_within_an_epoch_go_on_together(recorded, tmp_path):
    runs = [shutil.copytree(recorded / name, tmp_path / Path(name).name) for name in TWO_SEEDS]
    assert main.main(["--resume", *map(str, runs), "--data_path", str(recorded / "zoo")]) == 0
    for run, name in zip(runs, TWO_SEEDS, strict=True):
        check_ended(run, RESUMED[name])


# Flags that no branch of these rows reads: f1b1395 took them, they are refused now.
UNREAD = {
    "ag_news: MLP": "num_out_embedding",
    "ag_news: StatNN": "num_out_embedding",
    "mnist_branches: encoder, embedding": "classifier_nfn_channels",
    "mnist_branches: classifier, embedding": "transformers_nfn_channels",
    "mnist_branches: encoder": "classifier_nfn_channels",
    "mnist_branches: classifier": "transformers_nfn_channels",
    "mnist_branches: embedding": "transformers_nfn_channels",
}
ALSO_UNREAD = {"mnist_branches: embedding": "classifier_nfn_channels"}


def without_unread(row: GridRow) -> GridRow:
    unread = {UNREAD.get(row.name), ALSO_UNREAD.get(row.name)}
    return replace(row, flags={name: value for name, value in row.flags.items() if name not in unread})


def test_cells_have_the_recorded_keys(recorded, tmp_path):
    """An unread width is part of the key of a recorded configuration, as it was of f1b1395's."""
    grid = read_grid(RECORDED / "grid.yaml")
    readable = replace(grid, rows=tuple(map(without_unread, grid.rows)))
    cells, impossible = plan(readable, COMMANDS, tmp_path, "cpu", str(recorded / "zoo"))
    assert not impossible
    flags_of = {row.name: row.flags for row in grid.rows}
    names = {}
    for cell in cells:
        config = cell.config
        if UNREAD.get(cell.row) == "num_out_embedding":
            width = int(flags_of[cell.row]["num_out_embedding"])
            values = config.to_json()
            config = RunConfig.from_json({**values, "predictor": {**values["predictor"], "num_out_embedding": width}})
        key = hashlib.sha256(cell_keys._identity(config, cell.digest).encode()).hexdigest()[:12]
        names[f"{cell.row} | {cell.column}"] = f"{config.data.dataset}-{config.predictor.name}-seed{cell.seed}-{key}"
        assert config is not cell.config or names[f"{cell.row} | {cell.column}"] == cell.directory.name
    assert names == KEYS


@pytest.mark.parametrize("name", UNREAD)
def test_flags_that_no_branch_reads_are_refused_in_a_grid(name, recorded, tmp_path):
    grid = read_grid(RECORDED / "grid.yaml")
    row = next(row for row in grid.rows if row.name == name)
    with pytest.raises(GridError, match=f"row '{name}', column 'plain': --{UNREAD[name]} [0-9,]+: not read by"):
        plan(replace(grid, rows=(row,)), COMMANDS, tmp_path, "cpu", str(recorded / "zoo"))
