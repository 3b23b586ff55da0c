"""YAML and JSON of any content are an error of one line, in no time: depth, aliases, keys, digits, combinations."""

import json
import time

import pytest

from nfn_transformer.bounded_text import parse_json, parse_yaml
from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.generation.recipe import Recipe, read_recipe
from nfn_transformer.generation.texts import read_texts
from nfn_transformer.grids.grid_file import read_grid
from nfn_transformer.training.report import read_summary
from nfn_transformer.training.results import parse_result
from nfn_transformer.training.run_directory import RunDirectory, read_json

LAUGHS = "- &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"- &{new} [{','.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
GRID = "title: t\nrows: [{name: r, command: main}]\ncolumns: [{name: c}]\nseeds: "

YAML = {
    "brackets": ("title: " + "[" * 10_000, "lists in lists of more than 32 levels"),
    "aliases": (LAUGHS, "more than 100000 values"),
    "itself": ("a: &a [*a]", ""),
    "keys": ("".join(f"key{number}: 1\n" for number in range(100_000)), "characters, expected at most 262144"),
    "key twice": ("a: 1\na: 2", "repeated key 'a'"),
    "key of a list": ("[a, b]: 1", "a key that is no text"),
    "object": ("!!python/object/apply:os.system [ls]", ""),
    "digits": ("9" * 5000, ""),
    "control": ('title: "\\e]0;owned\\a"', "a text with control characters"),
}


@pytest.mark.parametrize("kind", YAML)
@pytest.mark.parametrize("read", [read_grid, lambda path: read_recipe(path, {})], ids=["grid", "recipe"])
def test_hostile_yaml_is_an_error(kind, read, tmp_path):
    text, message = YAML[kind]
    (tmp_path / "file.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(UserError) as error:
        read(tmp_path / "file.yaml")
    assert time.process_time() - start < 5
    assert message in str(error.value)
    assert len(str(error.value)) < 500


def test_a_few_aliases_are_read():
    assert parse_yaml("a: &x [1, 2]\nb: [*x, *x]") == {"a": ["1", "2"], "b": [["1", "2"], ["1", "2"]]}


@pytest.mark.parametrize("seed", ["9" * 5000, str(2**63), "-1", "1.5", "\u0661" * 20])
def test_a_seed_has_64_bits(seed, tmp_path):
    (tmp_path / "grid.yaml").write_text(f"{GRID}[{seed}]")
    with pytest.raises(UserError, match=r"seeds: expected a list of whole numbers, got \['") as error:
        read_grid(tmp_path / "grid.yaml")
    assert len(str(error.value)) < 400


def test_a_grid_has_a_bounded_number_of_cells(tmp_path):
    (tmp_path / "grid.yaml").write_text(f"{GRID}{list(range(20_000))}")
    assert len(read_grid(tmp_path / "grid.yaml").seeds) == 20_000
    rows = ", ".join(f"{{name: r{number}, command: main}}" for number in range(6))
    (tmp_path / "grid.yaml").write_text(GRID.replace("{name: r, command: main}", rows) + str(list(range(20_000))))
    with pytest.raises(UserError, match="expected at most 100,000 cells, got 120,000"):
        read_grid(tmp_path / "grid.yaml")


def test_a_recipe_has_a_bounded_number_of_combinations(tmp_path):
    values = {"w_init_std": 0.1, "l2_regularize": 0.0, "train_fraction": 0.5, "dropout": 0.1}
    lists = [f"{key}: {[value + number / 1000 for number in range(100)]}" for key, value in values.items()]
    (tmp_path / "recipe.yaml").write_text("\n".join(["draw: grid", "lr: {sgd: [0.1]}", *lists]))
    sizes = {"runs": 1, "hidden": 8, "epochs": (1,), "embed_dim": (4,), "n_attention_heads": (2,), "n_layers": (1,)}
    recipe = read_recipe(tmp_path / "recipe.yaml", sizes)
    with pytest.raises(UserError, match="expected at most 1,000,000 runs, got 100,000,000"):
        recipe.draw(1)
    assert len(Recipe(**{**sizes, "is_grid": True, "runs": 2}).draw(1)) == 2 * 24 * 5 * 5 * 4 * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "lists in lists of more than 32 levels"),
        ("[" * 100 + "]" * 100, "lists in lists of more than 32 levels"),
        ("[" + "9" * 5000 + "]", "a number of 5000 digits, expected at most 20"),
        ('{"a": 1, "a": 2}', "repeated key 'a'"),
        ("[NaN]", "NaN, expected a finite number"),
        ("[1e999]", "a number beyond those of 64 bits"),
    ],
    ids=["brackets", "levels", "digits", "twice", "nan", "infinite"],
)
def test_hostile_json_is_an_error(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json: cannot be read") as error:
        read_json(tmp_path / "config.json")
    assert message in str(error.value)
    assert len(str(error.value)) < 300


def test_sound_json_is_read():
    values = {"a": [1, 2.5, None, True, "x"], "b": {"c": {}}}
    assert parse_json(json.dumps(values)) == values


@pytest.mark.parametrize("test", [None, [], 5, {"tau": "x"}, {"tau": [1], "r2": 0, "mae": 0, "loss": 0}])
def test_results_without_a_test_are_an_error(test, tmp_path):
    validation = {"tau": 0.5, "r2": 0.5, "mae": 0.1, "loss": 0.1}
    results = {"test": test, "validation": validation, "networks": {"train": 1, "test": 1}, "status": "complete"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(RunError, match="is not what a finished run writes"):
        read_summary(RunDirectory(tmp_path))
    with pytest.raises(RunError, match="is not what a finished run writes"):
        parse_result(results, tmp_path / "results.json")


def test_a_class_of_5000_digits_is_an_error(tmp_path):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text(f'"{"1" * 5000}","a title","a text"')
    with pytest.raises(ZooError, match="expected a class from 1 to"):
        read_texts(tmp_path)
