"""A grid as a small readable file: rows (models) x columns (settings) x seeds.

    title: What the table shows
    about: One or two sentences below it.            (may be left out)
    models: models.yaml                              (a file beside this one: name -> command and flags)
    rows:
      - Transformer-NFN                              (a model by its name, or one with a name and flags of its own:)
      - {name: encoder alone, model: Transformer-NFN, flags: {cls_mode: no, emb_mode: no}}
    columns:
      - {name: all, flags: {cut_off: 0}}
      - {name: at least 20 %, flags: {cut_off: 0.2}}
    seeds: [1, 2, 3, 4, 5]
    flags: {dataset: mnist, data_path: data/mnist_transformer}        (of every cell)
    flags_of: {main: {emb_mode: no}}                                  (of the cells of one command)
    compare: {rows: Transformer-NFN}                 (a row, or a column, that the others are compared with)
    figure: dots                                     (or curves: columns by their number of training networks)
    published:
      source: arXiv 2410.04209
      rows: {Transformer-NFN: {all: 0.905 +- 0.002}}

All values are text, as on a command line: `no` is the word, not a boolean. A cell's flags are those of all
cells, of its command, its model, its row and its column; the last one counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from nfn_transformer.errors import UserError

_KEYS = {"title", "about", "models", "rows", "columns", "seeds", "flags", "flags_of", "compare", "figure", "published"}
_FIGURES = ("dots", "curves")


class GridError(UserError):
    """A grid's file is not as it must be."""


@dataclass(frozen=True)
class Row:
    """A row of the table: its name, the command that its cells run (main, xgb, gbm) and its flags."""

    name: str
    command: str
    flags: Mapping[str, str]


@dataclass(frozen=True)
class Column:
    """A column of the table: its name and its flags."""

    name: str
    flags: Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """Published mean and standard error; the latter None where none is given."""

    mean: float
    standard_error: float | None


@dataclass(frozen=True)
class Grid:
    """What a grid's file says.

    Fields: path of the file; reference_row or reference_column, the name of what the others are compared with;
    published, (row, column) -> published number; source, where those stand; figure, dots or curves.
    """

    path: Path
    title: str
    about: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    seeds: tuple[int, ...]
    reference_row: str | None
    reference_column: str | None
    published: Mapping[tuple[str, str], Published]
    source: str
    figure: str = "dots"


def flags_to_argv(flags: Mapping[str, str]) -> list[str]:
    """Return the arguments of a command line that give these flags."""
    return [argument for name, value in flags.items() for argument in (f"--{name}", value)]


def read_grid(path: Path) -> Grid:
    """Read a grid's file.

    Raises:
        GridError: it is missing, no YAML, or something in it is not as it must be; the message names the key.
    """
    values = _read_yaml(path)
    _check_keys(values, _KEYS, str(path))
    for key in ("title", "rows", "columns", "seeds"):
        if key not in values:
            raise GridError(f"{path}: missing key '{key}'")
    models = _models(path, values)
    shared, of_command = _flags(values, f"{path}"), _mapping(values.get("flags_of", {}), f"{path}: flags_of")
    rows = tuple(
        _row(entry, models, shared, of_command, f"{path}: rows[{place}]")
        for place, entry in enumerate(_list(values, "rows", path))
    )
    columns = tuple(
        _column(entry, f"{path}: columns[{place}]") for place, entry in enumerate(_list(values, "columns", path))
    )
    commands = {model["command"] for model in models.values()} | {row.command for row in rows}
    _check_keys(of_command, commands, f"{path}: flags_of")
    _check_distinct([row.name for row in rows], f"{path}: rows")
    _check_distinct([column.name for column in columns], f"{path}: columns")
    reference_row, reference_column = _references(values, rows, columns, path)
    published, source = _published(values.get("published", {}), rows, columns, f"{path}: published")
    return Grid(
        path=path,
        title=" ".join(_text(values["title"], f"{path}: title").split()),
        about=_text(values.get("about", ""), f"{path}: about"),
        rows=rows,
        columns=columns,
        seeds=_seeds(values["seeds"], f"{path}: seeds"),
        reference_row=reference_row,
        reference_column=reference_column,
        published=published,
        source=source,
        figure=_figure(values, path),
    )


def _figure(values: Mapping, path: Path) -> str:
    figure = _text(values.get("figure", _FIGURES[0]), f"{path}: figure")
    if figure not in _FIGURES:
        raise GridError(f"{path}: figure: '{figure}', expected one of {', '.join(_FIGURES)}")
    return figure


class _Loader(yaml.BaseLoader):
    """Builds nothing but text, lists and mappings; of a key that is there twice it does not take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key '{twice[0]}' stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise GridError(f"{path}: no such file; for examples see scripts/tables/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GridError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    return _mapping(values, str(path))


def _mapping(value, where: str) -> dict:
    if not isinstance(value, dict):
        raise GridError(f"{where}: expected keys with values, got {value!r}")
    return value


def _check_keys(values: Mapping, known: set[str], where: str) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise GridError(f"{where}: unknown key '{unknown[0]}'; expected some of {', '.join(sorted(known))}")


def _text(value, where: str) -> str:
    if not isinstance(value, str):
        raise GridError(f"{where}: expected text, got {value!r}")
    return value.strip()


def _list(values: Mapping, key: str, path: Path) -> Sequence:
    if not isinstance(values[key], list) or not values[key]:
        raise GridError(f"{path}: {key}: expected a list, got {values[key]!r}")
    return values[key]


def _flags(values: Mapping, where: str) -> dict[str, str]:
    flags = _mapping(values.get("flags", {}), f"{where}: flags")
    for name, value in flags.items():
        if not isinstance(value, str):
            raise GridError(f"{where}: flags: {name}: expected one value, got {value!r}; quote it if it holds commas")
    return flags


def _models(path: Path, values: Mapping) -> dict[str, dict]:
    if "models" not in values:
        return {}
    place = path.parent / _text(values["models"], f"{path}: models")
    models = _read_yaml(place)
    for name, model in models.items():
        _check_keys(_mapping(model, f"{place}: {name}"), {"command", "flags"}, f"{place}: {name}")
        if "command" not in model:
            raise GridError(f"{place}: {name}: missing key 'command'")
        _text(model["command"], f"{place}: {name}: command")
    return models


def _row(entry, models: Mapping, shared: Mapping, of_command: Mapping, where: str) -> Row:
    entry = {"model": entry} if isinstance(entry, str) else _mapping(entry, where)
    _check_keys(entry, {"name", "model", "command", "flags"}, where)
    model = {}
    if "model" in entry:
        name = _text(entry["model"], f"{where}: model")
        if name not in models:
            raise GridError(f"{where}: no model '{name}'; the models are {', '.join(models) or 'none'}")
        model = models[name]
    command = _text(entry.get("command", model.get("command", "")), f"{where}: command")
    if not command:
        raise GridError(f"{where}: expected 'model' or 'command'")
    name = _text(entry.get("name", entry.get("model", "")), f"{where}: name")
    if not name:
        raise GridError(f"{where}: missing key 'name'")
    of_this = _flags({"flags": of_command.get(command, {})}, f"{where}: flags_of")
    return Row(name, command, {**shared, **of_this, **_flags(model, where), **_flags(entry, where)})


def _column(entry, where: str) -> Column:
    _check_keys(_mapping(entry, where), {"name", "flags"}, where)
    if "name" not in entry:
        raise GridError(f"{where}: missing key 'name'")
    return Column(_text(entry["name"], f"{where}: name"), _flags(entry, where))


def _check_distinct(names: Sequence[str], where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GridError(f"{where}: '{twice[0]}' stands there twice")


def _seeds(values, where: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.isdecimal() for v in values):
        raise GridError(f"{where}: expected a list of whole numbers, got {values!r}")
    seeds = tuple(map(int, values))
    _check_distinct([str(seed) for seed in seeds], where)  # 2 and 02 are one seed
    return seeds


def _references(
    values: Mapping, rows: Sequence[Row], columns: Sequence[Column], path: Path
) -> tuple[str | None, str | None]:
    compare = _mapping(values.get("compare", {}), f"{path}: compare")
    _check_keys(compare, {"rows", "columns"}, f"{path}: compare")
    for key, known in (("rows", rows), ("columns", columns)):
        if key in compare and compare[key] not in [entry.name for entry in known]:
            raise GridError(f"{path}: compare: {key}: no '{compare[key]}' among the {key}")
    return compare.get("rows"), compare.get("columns")


def _published(
    values, rows: Sequence[Row], columns: Sequence[Column], where: str
) -> tuple[dict[tuple[str, str], Published], str]:
    _check_keys(_mapping(values, where), {"source", "rows"}, where)
    found = {}
    for row, numbers in _mapping(values.get("rows", {}), f"{where}: rows").items():
        if row not in [known.name for known in rows]:
            raise GridError(f"{where}: no row '{row}'")
        for column, text in _mapping(numbers, f"{where}: {row}").items():
            if column not in [known.name for known in columns]:
                raise GridError(f"{where}: {row}: no column '{column}'")
            found[row, column] = _number(text, f"{where}: {row}: {column}")
    return found, _text(values.get("source", ""), f"{where}: source")


def _number(text, where: str) -> Published:
    try:
        mean, _, error = _text(text, where).replace("±", "+-").partition("+-")
        found = Published(float(mean), float(error) if error else None)
        if not all(map(math.isfinite, (found.mean, found.standard_error or 0.0))):
            raise ValueError("not finite")
        return found
    except ValueError:
        raise GridError(f"{where}: expected a number as in 0.905 +- 0.002, got '{text}'") from None
