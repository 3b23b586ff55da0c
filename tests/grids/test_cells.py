"""Cells: the same numbers are one cell wherever and on whatever they are run, other numbers are another cell."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfn_transformer import main, xgb
from nfn_transformer.errors import RunError
from nfn_transformer.grids import cells as cell_keys
from nfn_transformer.grids.cells import Cell, plan, results_of
from nfn_transformer.grids.grid_file import GridError, read_grid
from nfn_transformer.reproduce import COMMANDS
from nfn_transformer.training.run import ResumeOverrides, begin_runs, resume_runs

GRID = {
    "title": "Cells",
    "rows": [{"name": "net", "command": "main", "flags": {"enc_mode": "no", "epochs": 1}}],
    "columns": [{"name": "all", "flags": {}}],
    "seeds": [1],
    "flags": {"dataset": "digits", "wandb": "False"},
}


@pytest.fixture
def planned(small_zoo, tmp_path):
    """Plans a grid that differs from GRID in some keys; JSON is YAML."""

    def planned(device: str = "cpu", data_path: Path | str | None = small_zoo, cells: Path = Path("cells"), **keys):
        path = tmp_path / "grid.yaml"
        path.write_text(json.dumps({**GRID, **keys}))
        given = None if data_path is None else str(data_path)
        return plan(read_grid(path), COMMANDS, tmp_path / cells, device, given)

    return planned


def only(plans: tuple) -> Cell:
    (cell,), impossible = plans
    assert impossible == []
    return cell


def row(command: str = "main", name: str = "net", **flags) -> dict:
    return {"name": name, "command": command, "flags": flags}


def with_flags(planned, **flags) -> Path:
    return only(planned(rows=[row(enc_mode="no", epochs="1", **flags)])).directory


def copied(zoo: Path, place: Path) -> Path:
    return Path(shutil.copytree(zoo, place, ignore=shutil.ignore_patterns(".zoo_cache")))


def test_what_decides_no_number_leaves_a_cell_where_it_is(planned, small_zoo, tmp_path):
    place = only(planned()).directory
    assert place.parent == tmp_path / "cells"
    assert place.name.startswith("digits-")
    assert only(planned(data_path=copied(small_zoo, tmp_path / "copy"))).directory == place
    for flags in (
        {"wandb": "True", "project": "other"},
        {"n_workers": "1", "load_cache": "no"},
        {"augment": "no"},
        {"where": ""},
        {"compile": "yes", "cuda_graphs": "yes", "stream": "yes", "amp": "no"},
        {"cut_off": "0", "lr": "1e-3"},  # the defaults, written down
        {"data_path": str(small_zoo)},
    ):
        assert with_flags(planned, **flags) == place, flags
    assert only(planned(title="Other", columns=[{"name": "every", "flags": {}}])).directory == place


def test_cells_of_earlier_versions_are_known_by_the_same_keys(planned):
    values, _ = json.loads(cell_keys._identity(only(planned()).config, "digest"))
    assert set(values["data"]) == {"dataset", "ckpt_epoch", "cut_off", "n_heads", "allow_faulty", "augment"}
    assert set(values["training"]) == {"epochs", "warmup_epochs", "batch_size", "optimizer", "lr", "wd"}


def test_hyperparameters_are_data_where_they_are_read(planned, small_zoo, tmp_path):
    changed = copied(small_zoo, tmp_path / "changed")
    table = changed / "metadata/digits.csv"
    text = table.read_text()
    assert text.count(",0.02,1,digits,16,2,2,75,digits/01z00000_75") == 1
    table.write_text(
        text.replace(",0.02,1,digits,16,2,2,75,digits/01z00000_75", ",0.05,1,digits,16,2,2,75,digits/01z00000_75")
    )
    for features, same in (("hyperparameters", False), ("statistics", True)):
        rows = [row("gbm", model="extra_trees", features=features)]
        places = {only(planned(rows=rows, data_path=zoo)).directory for zoo in (small_zoo, changed)}
        assert (len(places) == 1) == same, features


def test_each_number_of_training_networks_is_data_of_its_own(planned):
    columns = [{"name": str(count), "flags": {"train_networks": str(count)}} for count in (10, 20)]
    found, impossible = planned(
        columns=[*columns, {"name": "all", "flags": {}}, {"name": "1000", "flags": {"train_networks": "1000"}}]
    )
    assert len({cell.digest for cell in found}) == 3
    assert [one.column for one in impossible] == ["1000"]
    assert "--train_networks 1000: expected at most the 42 of the training side" in impossible[0].reason


def test_what_decides_numbers_makes_another_cell(planned, small_zoo, tmp_path):
    changed = copied(small_zoo, tmp_path / "changed")
    file = sorted(changed.glob("digits/*.pt"))[7]
    state = torch.load(file, weights_only=True)
    state["classifier.fc1.bias"][0] += 1e-3
    torch.save(state, file)
    places = [
        only(planned()).directory,
        only(planned(seeds=[2])).directory,
        only(planned(data_path=changed)).directory,
        only(planned(rows=[row("xgb")])).directory,
        only(planned(rows=[row("gbm", model="rf")])).directory,
        only(planned(rows=[row("gbm", model="gbdt")])).directory,
        with_flags(planned, wd="0.1"),
        with_flags(planned, cut_off="0.2"),
        with_flags(planned, cls_mode="hnps"),
        with_flags(planned, augment="yes"),
        with_flags(planned, augment="yes", augment_factor="3"),
        with_flags(planned, augment="yes", augment_scale="0.5"),
        with_flags(planned, amp="yes"),
        with_flags(planned, where="optimizer=adam"),
        with_flags(planned, train_networks="20"),
    ]
    assert len(set(places)) == len(places)


@pytest.fixture
def finished(planned) -> Cell:
    """A cell, run by its own words in this process."""
    cell = only(planned())
    assert cell.result() is None
    assert main.main(list(cell.job.begin[1:])) == 0
    return cell


def edit(cell: Cell, name: str, **changes) -> None:
    """Change values of a file of the cell's run; `part.key` is a key of a part."""
    file = cell.directory / name
    values = json.loads(file.read_text())
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        if inner:
            values[part][inner] = value
        else:
            values[part] = value
    file.write_text(json.dumps(values))


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_finished_cell(finished, planned):
    run = finished.directory
    written = json.loads((run / "results.json").read_text())
    result = finished.result()
    assert (result.score, result.r2, result.mae) == tuple(written["test"][name] for name in ("tau", "r2", "mae"))
    interval = written["test_tau_interval"]
    assert (result.low, result.high) == (interval["low"], interval["high"])
    assert (result.validation_score, result.status) == (written["validation"]["tau"], "complete")
    assert (result.train, result.test) == (42, 9)
    assert results_of([finished]) == ({("net", "all", 1): result}, [])
    assert finished.seconds() >= result.epoch_seconds > 0
    assert result.parameters == written["parameters"]
    assert 50 < result.peak_mib == max(float(row["peak_mib"]) for row in rows_of(run / "metrics.csv"))
    threads = json.loads((run / "config.json").read_text())["versions"]["threads"]
    assert result.machine == ("cpu with 1 thread" if str(threads) == "1" else f"cpu with {threads} threads")
    # It is found from another place and device, too.
    edit(finished, "config.json", device="cuda:1", versions={"torch": "9.9"}, data__data_path="/overrides")
    assert only(planned()).result() == replace(result, machine="cuda:1 with ? threads")
    edit(finished, "results.json", test__tau=None)
    assert math.isnan(only(planned()).result().score)
    (run / "metrics.csv").unlink()
    found, problems = results_of([finished])
    assert math.isnan(found["net", "all", 1].epoch_seconds)
    assert problems == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"training__lr": 0.5}),
        ("config.json", {"seed": 2}),
        ("config.json", {"data__cut_off": 0.2}),
        ("split.json", {"digest": "00000000"}),
    ],
)
def test_another_run_in_its_place_is_reported_and_not_taken(name, changes, finished):
    edit(finished, name, **changes)
    with pytest.raises(RunError, match="holds another run than this cell's; move it away"):
        finished.result()
    found, (problem,) = results_of([finished])
    assert found == {}
    assert problem.startswith(f"net | all | seed 1: {finished.directory}: holds another run")


def test_damaged_results_are_reported(finished):
    (finished.directory / "results.json").write_text('{"test": {}}')
    found, (problem,) = results_of([finished])
    assert found == {}
    assert "results.json: is not what a finished run writes" in problem


@pytest.mark.parametrize("name", ["seed", "seeds", "out_dir", "resume", "device"])
def test_flags_that_reproduce_sets_are_refused(name, planned):
    with pytest.raises(GridError, match=f"row 'net', column 'all': the flag '{name}' is set by reproduce.py"):
        planned(rows=[row(**{name: "1"})])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rows": [row(epochs="many")]}, "argument --epochs: expected a whole number, got 'many'"),
        ({"rows": [row(epoch="1")]}, "unrecognized arguments: --epoch 1"),
        ({"rows": [row("xgb", epochs="1")]}, "unrecognized arguments: --epochs 1"),
        ({"rows": [row("tree")]}, "no command 'tree'; expected one of main, xgb, gbm"),
        ({"rows": [row(emb_mode="[no]")]}, "argument --emb_mode: invalid choice: '[no]'"),
        ({"columns": [{"name": "all", "flags": {"cut_off": "20"}}]}, "argument --cut_off: must be at least 0"),
        ({"columns": [{"name": "all", "flags": {"augment": "maybe"}}]}, "expected True or False, got 'maybe'"),
        ({"rows": [row(augment_factor="3")]}, "--augment_factor 3: requires --augment True"),
    ],
)
def test_bad_flags_are_named_with_their_place(keys, message, planned, tmp_path):
    with pytest.raises(GridError) as raised:
        planned(**keys)
    assert str(raised.value).startswith(f"{tmp_path / 'grid.yaml'}: row 'net', column 'all': ")
    assert message in str(raised.value)


def test_a_cut_off_above_all_accuracies_is_only_its_own_matter(planned):
    columns = [{"name": "none", "flags": {"cut_off": 0.9999}}, {"name": "all", "flags": {}}]
    alone = planned(rows=[row(epochs="1"), row("xgb", "trees")], seeds=[1, 2])[0]
    cells, impossible = planned(rows=[row(epochs="1"), row("xgb", "trees")], columns=columns, seeds=[1, 2])
    assert cells == alone
    (missing,) = impossible
    assert missing.column == "none"
    assert "have an accuracy of at least 0.9999; too few runs" in missing.reason


def test_a_mistyped_condition_of_the_test_side_is_an_error_and_no_impossible_column(planned):
    for condition, message in (
        ("dephts=3", r"row 'net', column 'all': --test_where dephts=3: expected a column of the zoo's table \(lr, "),
        (
            "n_layers=77",
            r"column 'all': --test_where n_layers=77: no network has 'n_layers=77'; n_layers is",
        ),
    ):
        with pytest.raises(GridError, match=message):
            planned(rows=[row(epochs="1")], columns=[{"name": "all", "flags": {"test_where": condition}}])


def test_a_split_file_at_fault_is_an_error_and_one_that_a_cut_off_empties_an_impossible_column(
    planned, small_zoo, tmp_path
):
    file = tmp_path / "split.json"
    names = sorted(path.name for path in small_zoo.glob("digits/*.pt"))

    def plan_of(text: str, **flags):
        file.write_text(text)
        columns = [{"name": "all", "flags": {"split": str(file), **flags}}]
        return planned(rows=[row(epochs="1")], columns=columns)

    sides = {"train": names[:20], "val": names[20:40], "test": names[40:]}
    of_others = {"train": ["a.pt"], "val": ["b.pt"], "test": ["c.pt"]}
    assert only(plan_of(json.dumps(sides)))
    for flags in ({}, {"cut_off": "0.9999"}):
        for text, message in (
            (json.dumps({**sides, "test": None}), "'test': expected a list of paths, or one under 'path'"),
            (json.dumps({**sides, "val": names[:1]}), "is on the sides train and validation"),
            (json.dumps(of_others), "expected networks of the zoo on each side, got 0 train"),
        ):
            with pytest.raises(GridError) as raised:
                plan_of(text, **flags)
            start = f"{tmp_path / 'grid.yaml'}: row 'net', column 'all': --split {file}: "
            assert str(raised.value).startswith(start)
            assert message in str(raised.value)
    cells, (missing,) = plan_of(json.dumps(sides), cut_off="0.9999")
    assert cells == []
    assert "on each side, got 0 train" in missing.reason


def test_a_cell_that_began_elsewhere_goes_on_with_the_grids_own_table(planned, small_zoo, tmp_path):
    began = tmp_path / "elsewhere.csv"
    shutil.copy(small_zoo / "metadata/digits.csv", began)
    table = {"epochs": "1", "enc_mode": "no", "ckpt_epoch": "75", "file_column": "ckpt_file"}
    cell = only(planned(rows=[row(**table, table=str(began))]))
    begin_runs([cell.config], [cell.directory])[0].directory.release()
    moved = began.rename(tmp_path / "table.csv")
    with pytest.raises(RunError, match=r"elsewhere\.csv: the run's table is no longer there; name its new place"):
        main.main(list(cell.job.resume[1:3]))
    with pytest.raises(RunError, match="--table gone\\.csv: no such file or folder"):
        main.main([*cell.job.resume[1:3], "--table", "gone.csv"])
    again = only(planned(rows=[row(**table, table=str(moved))]))
    assert again.directory == cell.directory
    flags = main.build_parser().parse_args(again.job.resume[1:])
    (run,) = resume_runs(flags.resume, ResumeOverrides(data_path=flags.data_path, table=flags.table))
    assert run.config.data.table == str(moved)


def test_a_seed_comes_before_the_next(planned):
    columns = [{"name": name, "flags": {"cut_off": cut}} for name, cut in (("x", 0), ("y", 0.1))]
    cells, _ = planned(rows=[row(epochs="1"), row("xgb", "trees")], columns=columns, seeds=[5, 2])
    assert [(cell.seed, cell.column, cell.row) for cell in cells] == [
        (seed, column, name) for seed in (5, 2) for column in "xy" for name in ("net", "trees")
    ]
    assert len({cell.digest for cell in cells}) == 4  # one for each seed and column


def test_all_models_of_a_seed_share_one_split(planned):
    rows = [row(enc_mode="no", epochs="1"), row("xgb", "trees"), row("main", "flat", enc_mode="mlp", epochs="1")]
    cells, _ = planned(rows=rows, columns=[{"name": "some", "flags": {"cut_off": 0.1}}], seeds=[1, 2])
    first, trees, flat = (cell for cell in cells if cell.seed == 1)
    assert first.digest == trees.digest == flat.digest
    assert {cell.digest for cell in cells if cell.seed == 2} != {first.digest}
    main.main(list(first.job.begin[1:]))
    xgb.main(list(trees.job.begin[1:]))
    assert trees.job.begin[0].endswith("nfn_transformer/xgb.py")
    splits = [json.loads((cell.directory / "split.json").read_text()) for cell in (first, trees)]
    assert splits[0] == splits[1]
    assert splits[0]["digest"] == first.digest
    assert first.result().test == trees.result().test == len(splits[0]["test"])


def test_columns_of_several_tasks_read_labels_of_their_own(planned):
    columns = [
        {"name": column, "flags": {"task": "classify", "label_column": column}} for column in ("optimizer", "dropout")
    ]
    cells, _ = planned(columns=[{"name": "all", "flags": {}}, *columns])
    assert len({cell.digest for cell in cells}) == 3
    alone, _ = planned(columns=columns[1:])
    assert alone[0].directory == cells[2].directory
