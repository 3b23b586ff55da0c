"""The file of a grid: what it says is read so, what it must not say is named, and the tables that are shipped."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from test_readme import COMMANDS as PUBLISHED_COMMANDS

from nfn_transformer.grids.grid_file import Grid, GridColumn, GridError, GridRow, Published, flags_to_argv, read_grid
from nfn_transformer.reproduce import COMMANDS
from nfn_transformer.trees.config import TREE_MODELS

TABLES = Path(__file__).parents[2] / "scripts/tables"
SHIPPED = sorted(path for path in TABLES.glob("*.yaml") if path.name != "models.yaml")

MODELS = """
Net: {command: main, flags: {enc_mode: inv, lr: 0.1, wd: 0.5, epochs: 7}}
Trees: {command: xgb}
"""

FULL = """
title: A grid
about: >-
  Two
  lines.
models: models.yaml
rows:
  - Net
  - {name: Net without, model: Net, flags: {emb_mode: no, epochs: 9}}
  - Trees
  - {name: By hand, command: gbm, flags: {model: rf}}
columns:
  - {name: all, flags: {cut_off: 0}}
  - {name: 20 %, flags: {cut_off: 0.2}}
seeds: [3, 1, 02]
flags: {dataset: digits, wandb: off, lr: 0.3, wd: 0.3, epochs: 3}
flags_of: {main: {lr: 0.2, wd: 0.2, cls_mode: no}, xgb: {model: dart}}
compare: {rows: Net, columns: all}
published:
  source: a paper
  rows:
    Net: {all: 0.905 +- 0.002, 20 %: 0.9±0.01}
    Trees: {all: 0.8}
"""


def write(folder: Path, text: str, models: str = MODELS) -> Path:
    (folder / "models.yaml").write_text(models, encoding="utf-8")
    (folder / "grid.yaml").write_text(text, encoding="utf-8")
    return folder / "grid.yaml"


def refused(path: Path) -> str:
    with pytest.raises(GridError) as raised:
        read_grid(path)
    return str(raised.value)


def test_a_full_grid(tmp_path):
    path = write(tmp_path, FULL)
    shared = {"dataset": "digits", "wandb": "off"}
    of_main = {**shared, "cls_mode": "no", "enc_mode": "inv", "lr": "0.1", "wd": "0.5"}
    assert read_grid(path) == Grid(
        path=path,
        title="A grid",
        about="Two lines.",
        rows=(
            GridRow("Net", "main", {**of_main, "epochs": "7"}),
            GridRow("Net without", "main", {**of_main, "emb_mode": "no", "epochs": "9"}),
            GridRow("Trees", "xgb", {**shared, "lr": "0.3", "wd": "0.3", "epochs": "3", "model": "dart"}),
            GridRow("By hand", "gbm", {**shared, "lr": "0.3", "wd": "0.3", "epochs": "3", "model": "rf"}),
        ),
        columns=(GridColumn("all", {"cut_off": "0"}), GridColumn("20 %", {"cut_off": "0.2"})),
        seeds=(3, 1, 2),
        reference_row="Net",
        reference_column="all",
        published={
            ("Net", "all"): Published(0.905, 0.002),
            ("Net", "20 %"): Published(0.9, 0.01),
            ("Trees", "all"): Published(0.8, None),
        },
        source="a paper",
    )


def test_a_title_is_one_line(tmp_path):
    assert read_grid(write(tmp_path, FULL.replace("title: A grid", "title: |\n  A\n  grid"))).title == "A grid"


def test_what_may_be_left_out(tmp_path):
    text = "{title: t, rows: [{name: r, command: main}], columns: [{name: c}], seeds: [1]}"
    grid = read_grid(write(tmp_path, text))
    assert (grid.about, grid.source, grid.published) == ("", "", {})
    assert (grid.reference_row, grid.reference_column) == (None, None)
    assert (grid.rows, grid.columns) == ((GridRow("r", "main", {}),), (GridColumn("c", {}),))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: A grid", "title: [A", "grid.yaml: cannot be read as YAML: "),
        (FULL, "", "grid.yaml: expected keys with values, got "),
        (FULL, "- a list", "grid.yaml: expected keys with values, got ['a list']"),
        ("title: A grid", "", "grid.yaml: missing key 'title'"),
        ("title: A grid", "title: {a: b}", "grid.yaml: title: expected text, got {'a': 'b'}"),
        ("seeds: [3, 1, 02]", "", "grid.yaml: missing key 'seeds'"),
        ("seeds: [3, 1, 02]", "seeds: []", "grid.yaml: seeds: expected a list of whole numbers, got []"),
        ("seeds: [3, 1, 02]", "seeds: 5", "grid.yaml: seeds: expected a list of whole numbers, got '5'"),
        ("seeds: [3, 1, 02]", "seeds: [1, 2.5]", "grid.yaml: seeds: expected a list of whole numbers"),
        ("seeds: [3, 1, 02]", "seeds: [1, -2]", "grid.yaml: seeds: expected a list of whole numbers"),
        ("seeds: [3, 1, 02]", "seeds: [1, [2]]", "grid.yaml: seeds: expected a list of whole numbers"),
        (
            "seeds: [3, 1, 02]",
            "seeds: [4]\nseeds: [5]",
            "grid.yaml: cannot be read as YAML: repeated key 'seeds'",
        ),
        ("seeds: [3, 1, 02]", "seeds: [4, 4]", "grid.yaml: seeds: '4' is repeated"),
        ("seeds: [3, 1, 02]", "seeds: [2, 02]", "grid.yaml: seeds: '2' is repeated"),
        ("about:", "abuot:", "grid.yaml: unknown key 'abuot'; expected some of about, columns, compare, "),
        ("models: models.yaml", "models: other.yaml", "other.yaml: no such file"),
        ("models: models.yaml", "", "grid.yaml: rows[0]: no model 'Net'; the models are none"),
        ("  - Trees", "  - Tres", "grid.yaml: rows[2]: no model 'Tres'; the models are Net, Trees"),
        ("  - Trees", "  - Net", "grid.yaml: rows: 'Net' is repeated"),
        ("  - Trees", "  - [Net]", "grid.yaml: rows[2]: expected keys with values, got ['Net']"),
        ("  - Trees", "  - {name: Trees}", "grid.yaml: rows[2]: expected 'model' or 'command'"),
        ("  - Trees", "  - {command: xgb}", "grid.yaml: rows[2]: missing key 'name'"),
        ("  - Trees", "  - {model: Trees, flag: {}}", "grid.yaml: rows[2]: unknown key 'flag'"),
        ("model: rf}", "model: [rf]}", "grid.yaml: rows[3]: flags: model: expected one value, got ['rf']; quote it"),
        ("{model: rf}", "rf", "grid.yaml: rows[3]: flags: expected keys with values, got 'rf'"),
        ("name: 20 %", "name: all", "grid.yaml: columns: 'all' is repeated"),
        ("name: 20 %, ", "", "grid.yaml: columns[1]: missing key 'name'"),
        ("{cut_off: 0.2}", "{cut_off: {a: b}}", "grid.yaml: columns[1]: flags: cut_off: expected one value"),
        ("lr: 0.3,", "lr: [1, 2],", "grid.yaml: flags: lr: expected one value, got ['1', '2']; quote it"),
        ("lr: 0.2,", "lr: [1, 2],", "grid.yaml: rows[0]: flags_of: flags: lr: expected one value"),
        ("flags_of: {main:", "flags_of: {mian:", "grid.yaml: flags_of: unknown key 'mian'; expected some of gbm, main"),
        ("compare: {rows: Net,", "compare: {rows: Nt,", "grid.yaml: compare: rows: no 'Nt' among the rows"),
        ("columns: all}", "columns: every}", "grid.yaml: compare: columns: no 'every' among the columns"),
        ("compare: {rows:", "compare: {row:", "grid.yaml: compare: unknown key 'row'"),
        ("compare:", "figure: bars\ncompare:", "grid.yaml: figure: 'bars', expected one of dots, curves"),
        ("    Trees: {all: 0.8}", "    Tres: {all: 0.8}", "grid.yaml: published: no row 'Tres'"),
        ("{all: 0.8}", "{al: 0.8}", "grid.yaml: published: Trees: no column 'al'"),
        (
            "{all: 0.8}",
            "{all: about 0.8}",
            "published: Trees: all: expected a number as in 0.905 +- 0.002, got 'about 0.8'",
        ),
        ("{all: 0.8}", "{all: 0.8 +- x}", "published: Trees: all: expected a number as in 0.905 +- 0.002"),
        ("{all: 0.8}", "{all: nan}", "published: Trees: all: expected a number as in 0.905 +- 0.002, got 'nan'"),
        ("{all: 0.8}", "{all: 0.8 +- inf}", "published: Trees: all: expected a number as in 0.905 +- 0.002"),
        ("source: a paper", "sorce: a paper", "grid.yaml: published: unknown key 'sorce'"),
    ],
)
def test_what_is_wrong_is_named(old, new, message, tmp_path):
    assert old in FULL
    assert message in refused(write(tmp_path, FULL.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("Net: [", "models.yaml: cannot be read as YAML: "),
        ("- Net", "models.yaml: expected keys with values, got ['Net']"),
        ("Net: main", "models.yaml: Net: expected keys with values, got 'main'"),
        ("Net: {command: [main]}", "models.yaml: Net: command: expected text, got ['main']"),
        ("Net: {flags: {}}", "models.yaml: Net: missing key 'command'"),
        ("Net: {command: main, flgs: {}}", "models.yaml: Net: unknown key 'flgs'; expected some of command, flags"),
    ],
)
def test_a_wrong_file_of_models_is_named(models, message, tmp_path):
    assert message in refused(write(tmp_path, FULL, models))


def test_no_such_file_no_text(tmp_path):
    assert f"{tmp_path / 'absent.yaml'}: no such file; these come with the package, " in refused(
        tmp_path / "absent.yaml"
    )
    assert f"{tmp_path}: cannot be read as YAML: " in refused(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"title: \xff\xfe")
    assert "bytes.yaml: cannot be read as YAML: " in refused(tmp_path / "bytes.yaml")


def test_tags_build_nothing(tmp_path):
    planted = tmp_path / "planted"
    tag = f"!!python/object/apply:os.mkdir ['{planted}']"
    assert "grid.yaml: title: expected text, got " in refused(write(tmp_path, f"title: {tag}\n{FULL[15:]}"))
    tagged = FULL.replace("title: A grid", "title: !!python/name:os.system A grid").replace("lr: 0.3", "lr: !!int '3'")
    grid = read_grid(write(tmp_path, tagged))
    assert (grid.title, grid.rows[2].flags["lr"]) == ("A grid", "3")
    assert not planted.exists()


def words(row: GridRow, column: GridColumn) -> list[str]:
    """Return the flags of a cell's command, apart from its seed, device and place."""
    return flags_to_argv({**row.flags, **column.flags})


def config(row: GridRow, column: GridColumn):
    command = COMMANDS[row.command]
    return command.run_config(command.build_parser().parse_args(words(row, column)))


def place(row: str, column: str, grid: Grid) -> tuple[GridRow, GridColumn]:
    (found,) = [entry for entry in grid.rows if entry.name == row]
    (setting,) = [entry for entry in grid.columns if entry.name == column]
    return found, setting


def test_there_are_shipped_tables():
    assert {path.stem for path in SHIPPED} >= {"mnist", "ag_news", "mnist_branches", "mnist_widths", "smoke"}


@pytest.fixture
def zoos_in_place(tmp_path, monkeypatch):
    """A working folder where the released zoos lie; nothing is read of them."""
    for dataset in ("mnist", "ag_news"):
        (tmp_path / f"data/{dataset}_transformer").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("zoos_in_place")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_table_can_be_run(path):
    grid = read_grid(path)
    configs = {(row.name, column.name): config(row, column) for row in grid.rows for column in grid.columns}
    assert len({repr(each) for each in configs.values()}) == len(grid.rows) * len(grid.columns)
    for column in grid.columns:  # all rows of a column are predicting on the same split
        assert len({repr(each.data) for (_, name), each in configs.items() if name == column.name}) == 1


@pytest.mark.usefixtures("zoos_in_place")
@pytest.mark.parametrize("line", PUBLISHED_COMMANDS)
def test_a_row_has_the_published_settings(line):
    published = COMMANDS["main"].run_config(COMMANDS["main"].build_parser().parse_args(shlex.split(line)))
    name = {"inv": "Transformer-NFN", "mlp": "MLP", "statnn": "StatNN"}[published.predictor.enc_mode]
    grid = read_grid(TABLES / f"{published.data.dataset}.yaml")
    found = config(*place(name, "no threshold", grid))
    if published.predictor.emb_mode == "no":  # then no number comes from the embedding
        found = replace(found, predictor=replace(found.predictor, num_out_embedding=1))
        published = replace(published, predictor=replace(published.predictor, num_out_embedding=1))
    assert found == published


@pytest.mark.usefixtures("zoos_in_place")
def test_the_six_predictors_and_thresholds():
    for name in ("mnist", "ag_news"):
        grid = read_grid(TABLES / f"{name}.yaml")
        names = ["XGBoost", "LightGBM", "Random forest", "MLP", "StatNN", "Transformer-NFN"]
        assert [row.name for row in grid.rows] == names
        assert [float(column.flags["cut_off"]) for column in grid.columns] == [0, 0.2, 0.4, 0.6, 0.8]
        assert len(grid.seeds) == 5
        assert grid.reference_row == "Transformer-NFN"
        for row, entry in [
            ("XGBoost", TREE_MODELS["gbtree"]),
            ("LightGBM", TREE_MODELS["gbdt"]),
            ("Random forest", TREE_MODELS["rf"]),
        ]:
            found = config(*place(row, "no threshold", grid))
            assert (found.predictor, found.training) == (entry.config(), entry.boosting)


@pytest.mark.usefixtures("zoos_in_place")
def test_published_numbers_are_those_at_hand_and_no_others():
    shipped = {
        (path.stem, row, column): number
        for path in SHIPPED
        for (row, column), number in read_grid(path).published.items()
    }
    mnist, ag_news = Published(0.905, 0.002), Published(0.910, 0.001)
    assert shipped == {
        ("mnist", "Transformer-NFN", "no threshold"): mnist,
        ("mnist_augmentation", "Transformer-NFN", "as it is"): mnist,
        ("mnist_branches", "encoder, classifier, embedding", "no threshold"): mnist,
        ("mnist_branches", "encoder", "no threshold"): Published(0.902, None),
        ("mnist_widths", "10 channels", "no threshold"): mnist,
        ("ag_news", "Transformer-NFN", "no threshold"): ag_news,
        ("ag_news_augmentation", "Transformer-NFN", "as it is"): ag_news,
        ("inr_mnist", "mlp", "10,000 INRs"): Published(0.176, None),
        ("inr_mnist", "np", "10,000 INRs"): Published(0.785, None),
        ("inr_mnist", "hnp", "10,000 INRs"): Published(0.791, None),
        ("inr_mnist", "graph, gnn", "10,000 INRs"): Published(0.914, None),
        **{
            ("cnn_mnist", row, "600 CNNs"): Published(tau, None)
            for row, tau in {"statnn": 0.915, "np": 0.922, "hnp": 0.934, "nft": 0.926, "graph, gnn": 0.930}.items()
        },
        **{
            ("cnn_halves", row, "ReLU"): Published(tau, None)
            for row, tau in {"statnn": 0.914, "np": 0.919, "hnp": 0.926, "magep": 0.922}.items()
        },
    }
    sources = {name: read_grid(TABLES / f"{name}.yaml").source for name, _, _ in shipped}
    others = {"inr_mnist": "DWSNets", "cnn_mnist": "CIFAR-10", "cnn_halves": "CIFAR-10"}  # measured on other data
    assert all(others.get(name, "2410.04209") in text for name, text in sources.items())
    encoder, setting = place("encoder", "no threshold", read_grid(TABLES / "mnist_branches.yaml"))
    modes = config(encoder, setting).predictor
    assert (modes.enc_mode, modes.cls_mode, modes.emb_mode) == ("inv", "no", "no")
