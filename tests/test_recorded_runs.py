"""Runs and cells of commit f1b1395, recorded by data/recorded_runs/record.py, are read, resumed and known as then."""

import csv
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from nfn_transformer import main, predict
from nfn_transformer.grids.cells import plan
from nfn_transformer.grids.grid_file import GridError, GridRow, read_grid
from nfn_transformer.reproduce import COMMANDS

RECORDED = Path(__file__).parent / "data/recorded_runs"
TABLES = Path(__file__).parents[1] / "scripts/tables"
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
        del row["seconds"], row["peak_mib"]
        assert row == pytest.approx(expected_row, nan_ok=True, **CLOSE_AFTER_TRAINING)
    results = json.loads((run / "results.json").read_text())
    assert results.pop("test_references").keys() == {"tau_that_ties_leave"}  # which those runs had not
    check_close(results, expected["results"])
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


def with_recorded(row: GridRow) -> GridRow:
    """The row as it stands in today's tables: an unread flag is left out, an unread width is told as recorded."""
    unread = {UNREAD.get(row.name), ALSO_UNREAD.get(row.name)}
    recorded = {name: value for name, value in row.flags.items() if name in unread and name.startswith("num_out")}
    return replace(row, flags={n: value for n, value in row.flags.items() if n not in unread}, recorded=recorded)


def test_cells_have_the_recorded_keys(recorded, tmp_path):
    """Cells that f1b1395 has begun are known as then, even those with a width that no branch of theirs reads."""
    grid = read_grid(RECORDED / "grid.yaml")
    grid = replace(grid, rows=tuple(map(with_recorded, grid.rows)))
    for key in KEYS.values():
        (tmp_path / key).mkdir(exist_ok=True)  # cells of equal configurations share a run
    cells, impossible = plan(grid, COMMANDS, tmp_path, "cpu", str(recorded / "zoo"))
    assert not impossible
    assert {f"{cell.row} | {cell.column}": cell.directory.name for cell in cells} == KEYS
    # Where there is no such cell, a width that is not read is no part of a new one's key.
    anew, _ = plan(grid, COMMANDS, tmp_path / "empty", "cpu", str(recorded / "zoo"))
    changed = {cell.row for cell, other in zip(cells, anew, strict=True) if cell.directory.name != other.directory.name}
    assert changed == {row.name for row in grid.rows if row.recorded}


def test_the_tables_tell_the_recorded_widths():
    """The tables of AG News find the cells that f1b1395 finished."""
    for table in ("ag_news.yaml", "ag_news_augmentation.yaml"):
        rows = read_grid(TABLES / table).rows
        recorded = {row.name: row.recorded for row in rows if row.recorded}
        assert recorded == {"MLP": {"num_out_embedding": "50"}, "StatNN": {"num_out_embedding": "64"}}


@pytest.mark.parametrize("name", UNREAD)
def test_flags_that_no_branch_reads_are_refused_in_a_grid(name, recorded, tmp_path):
    grid = read_grid(RECORDED / "grid.yaml")
    row = next(row for row in grid.rows if row.name == name)
    with pytest.raises(GridError, match=f"row '{name}', column 'plain': --{UNREAD[name]} [0-9,]+: not read by"):
        plan(replace(grid, rows=(row,)), COMMANDS, tmp_path, "cpu", str(recorded / "zoo"))
