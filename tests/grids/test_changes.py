"""Changes of a grid from the command line, and runs that it takes in."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from table_by_hand import grid

from nfn_transformer import main as network
from nfn_transformer import reproduce
from nfn_transformer.errors import UserError
from nfn_transformer.grids.changes import change_grid, table_name
from nfn_transformer.grids.grid_file import GridRow

PARSERS = {name: command.build_parser for name, command in reproduce.COMMANDS.items()}
ROWS = (GridRow("net", "main", {"epochs": "9"}), GridRow("trees", "xgb", {}))


def changed(*settings: str, seeds=None):

    return change_grid(replace(grid(), rows=ROWS), PARSERS, seeds, settings)


def test_a_setting_is_that_of_all_rows_whose_command_has_it():
    found = changed("epochs=5", "cut_off=0.2", seeds=[7, 8])
    assert [row.flags for row in found.rows] == [{"epochs": "5", "cut_off": "0.2"}, {"cut_off": "0.2"}]
    assert found.seeds == (7, 8)
    assert "epochs=5, cut_off=0.2" in found.about
    assert changed().rows == ROWS
    assert changed().seeds == (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "--set epochs: expected NAME=VALUE, as in epochs=5"),
        ("=5", "--set =5: expected NAME=VALUE"),
        ("epoch=5", "--set epoch=5: expected a flag of main, xgb, got epoch"),
        ("epochs=many", "--set epochs=many: argument --epochs: expected a whole number, got 'many'"),
    ],
)
def test_a_setting_is_checked_as_a_flag_is(text, message):
    with pytest.raises(UserError, match=f"^{message}"):
        changed(text)


def test_the_table_of_a_changed_grid_lies_elsewhere():
    names = [
        table_name(grid(), seeds, settings)
        for seeds, settings in ((None, ()), ([1, 2], ()), (None, ("epochs=5",)), (None, ("where=a=b/c",)))
    ]
    assert names[:3] == ["grid", "grid-seeds=1,2", "grid-epochs=5"]
    assert len(set(names)) == 4
    assert "/" not in "".join(names)


@pytest.fixture
def written(small_zoo, tmp_path, monkeypatch) -> Path:
    """A grid of one network, and a run of it that was made by hand."""
    monkeypatch.chdir(tmp_path)
    flags = {"enc_mode": "no", "cls_mode": "no", "epochs": "1", "dataset": "digits", "data_path": str(small_zoo)}
    rows = [{"name": "net", "command": "main", "flags": flags}]
    values = {"title": "One", "rows": rows, "columns": [{"name": "all"}], "seeds": [1]}
    Path("grid.yaml").write_text(json.dumps(values))
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    assert network.main([*words, "--seed", "1", "--device", "cpu", "--out_dir", "by_hand/run"]) == 0
    return Path("grid.yaml")


def test_a_run_made_by_hand_is_taken_in(written, capsys):
    words = ["grid.yaml", "--report", "--device", "cpu"]
    assert reproduce.main(words) == 1
    shutil.copytree("by_hand/run", "by_hand/damaged")
    Path("by_hand/damaged/config.json").write_text("[]")
    capsys.readouterr()
    assert reproduce.main([*words, "--runs", "by_hand"]) == 0
    printed = capsys.readouterr().out
    assert "1 cells are runs in by_hand" in printed
    assert "table in runs/tables/grid\n" in printed
    assert "it replaces the table of another command, see runs/tables/grid/table.md" in printed
    tau = json.loads(Path("by_hand/run/results.json").read_text())["test"]["tau"]
    assert f"{tau:.3f}" in Path("runs/tables/grid/table.md").read_text()
    before = Path("runs/tables/grid/table.md").read_bytes()
    assert reproduce.main([*words, "--runs", "by_hand", "--set", "epochs=2"]) == 1  # another configuration
    printed = capsys.readouterr().out
    assert "0 cells are runs in by_hand" in printed
    assert "table in runs/tables/grid-epochs=2\n" in printed
    assert Path("runs/tables/grid/table.md").read_bytes() == before
    assert reproduce.main([*words, "--runs", "by_hand", "--seeds", "2"]) == 1
    assert "0 cells are runs in by_hand" in capsys.readouterr().out
