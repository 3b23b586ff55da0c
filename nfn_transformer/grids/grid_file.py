"""File of a grid: rows (models) x columns (settings) x seeds.

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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nfn_transformer.bounded_text import MOST_DIGITS, parse_yaml
from nfn_transformer.bundled import TABLES, bundled_names
from nfn_transformer.errors import UserError
from nfn_transformer.printable import shown

_KEYS = {"title", "about", "models", "rows", "columns", "seeds", "flags", "flags_of", "compare", "figure", "published"}
_MOST_CELLS = 100_000
_FIGURES = ("dots", "curves")


class GridError(UserError):
    """A grid's file has an error."""


@dataclass(frozen=True)
class GridRow:
    """A row of the table."""

    name: str
    """Name in the table."""
    command: str
    """Command that its cells run: main, xgb or gbm."""
    flags: Mapping[str, str]
    """Flags of its cells."""
    recorded: Mapping[str, str] = field(default_factory=dict)
    """Settings that cells of earlier versions recorded, though their model does not read them."""


@dataclass(frozen=True)
class GridColumn:
    """A column of the table."""

    name: str
    """Name in the table."""
    flags: Mapping[str, str]
    """Flags of its cells."""


@dataclass(frozen=True)
class Published:
    """A published number."""

    mean: float
    """Mean over seeds."""
    standard_error: float | None
    """Standard error of the mean; None if not given."""


@dataclass(frozen=True)
class Grid:
    """Content of a grid's file."""

    path: Path
    """Path of the file."""
    title: str
    """Title of the table, in one line."""
    about: str
    """Sentences below the title."""
    rows: tuple[GridRow, ...]
    """Rows in the table's order."""
    columns: tuple[GridColumn, ...]
    """Columns in the table's order."""
    seeds: tuple[int, ...]
    """Seeds of each row and column."""
    reference_row: str | None
    """GridRow that the others are compared with."""
    reference_column: str | None
    """GridColumn that the others are compared with."""
    published: Mapping[tuple[str, str], Published]
    """Published numbers, by row and column."""
    source: str
    """Source of the published numbers."""
    figure: str = "dots"
    """Kind of the figure: dots or curves."""


def flags_to_argv(flags: Mapping[str, str]) -> list[str]:
    """Return the arguments of a command line that give these flags."""
    return [argument for name, value in flags.items() for argument in (f"--{name}", value)]


def read_grid(path: Path) -> Grid:
    """Read a grid's file.

    Raises:
        GridError: the file is missing, no YAML, or a value is wrong; the message names the key.
    """
    values = _read_yaml(path)
    _check_keys(values, _KEYS, str(path))
    for key in ("title", "rows", "columns", "seeds"):
        if key not in values:
            raise GridError(f"{path}: missing key '{key}'")
    models = _models(path, values)
    shared, command_flags = _flags(values, f"{path}"), _mapping(values.get("flags_of", {}), f"{path}: flags_of")
    rows = tuple(
        _row(entry, models, shared, command_flags, f"{path}: rows[{index}]")
        for index, entry in enumerate(_list(values, "rows", path))
    )
    columns = tuple(
        _column(entry, f"{path}: columns[{index}]") for index, entry in enumerate(_list(values, "columns", path))
    )
    commands = {model["command"] for model in models.values()} | {row.command for row in rows}
    _check_keys(command_flags, commands, f"{path}: flags_of")
    _check_distinct([row.name for row in rows], f"{path}: rows")
    _check_distinct([column.name for column in columns], f"{path}: columns")
    seeds = _seeds(values["seeds"], f"{path}: seeds")
    if (cells := len(rows) * len(columns) * len(seeds)) > _MOST_CELLS:
        raise GridError(f"{path}: expected at most {_MOST_CELLS:,} cells, got {cells:,}")
    reference_row, reference_column = _references(values, rows, columns, path)
    published, source = _published(values.get("published", {}), rows, columns, f"{path}: published")
    return Grid(
        path=path,
        title=" ".join(_text(values["title"], f"{path}: title").split()),
        about=_text(values.get("about", ""), f"{path}: about"),
        rows=rows,
        columns=columns,
        seeds=seeds,
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


def _read_yaml(path: Path) -> dict:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = bundled_names(TABLES)
        raise GridError(f"{path}: no such file; these come with the package, for examples: {names}") from None
    except (OSError, ValueError) as error:
        raise GridError(f"{path}: cannot be read as YAML: {error}") from None
    return _mapping(values, str(path))


def _mapping(value, context: str) -> dict:
    if not isinstance(value, dict):
        raise GridError(f"{context}: expected keys with values, got {shown(value)}")
    return value


def _check_keys(values: Mapping, known: set[str], context: str) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise GridError(f"{context}: unknown key '{unknown[0]}'; expected some of {', '.join(sorted(known))}")


def _text(value, context: str) -> str:
    if not isinstance(value, str):
        raise GridError(f"{context}: expected text, got {shown(value)}")
    return value.strip()


def _list(values: Mapping, key: str, path: Path) -> Sequence:
    if not isinstance(values[key], list) or not values[key]:
        raise GridError(f"{path}: {key}: expected a list, got {shown(values[key])}")
    return values[key]


def _flags(values: Mapping, context: str) -> dict[str, str]:
    flags = _mapping(values.get("flags", {}), f"{context}: flags")
    for name, value in flags.items():
        if not isinstance(value, str):
            raise GridError(
                f"{context}: flags: {name}: expected one value, got {shown(value)}; quote it if it holds commas"
            )
    return flags


def _models(path: Path, values: Mapping) -> dict[str, dict]:
    if "models" not in values:
        return {}
    models_path = path.parent / _text(values["models"], f"{path}: models")
    models = _read_yaml(models_path)
    for name, model in models.items():
        context = f"{models_path}: {name}"
        _check_keys(_mapping(model, context), {"command", "flags", "recorded"}, context)
        if "command" not in model:
            raise GridError(f"{context}: missing key 'command'")
        _text(model["command"], f"{context}: command")
    return models


def _row(entry, models: Mapping, shared: Mapping, command_flags: Mapping, context: str) -> GridRow:
    entry = {"model": entry} if isinstance(entry, str) else _mapping(entry, context)
    _check_keys(entry, {"name", "model", "command", "flags"}, context)
    model = {}
    if "model" in entry:
        name = _text(entry["model"], f"{context}: model")
        if name not in models:
            raise GridError(f"{context}: no model '{name}'; the models are {', '.join(models) or 'none'}")
        model = models[name]
    command = _text(entry.get("command", model.get("command", "")), f"{context}: command")
    if not command:
        raise GridError(f"{context}: expected 'model' or 'command'")
    name = _text(entry.get("name", entry.get("model", "")), f"{context}: name")
    if not name:
        raise GridError(f"{context}: missing key 'name'")
    of_command = _flags({"flags": command_flags.get(command, {})}, f"{context}: flags_of")
    flags = {**shared, **of_command, **_flags(model, context), **_flags(entry, context)}
    return GridRow(name, command, flags, _flags({"flags": model.get("recorded", {})}, f"{context}: recorded"))


def _column(entry, context: str) -> GridColumn:
    _check_keys(_mapping(entry, context), {"name", "flags"}, context)
    if "name" not in entry:
        raise GridError(f"{context}: missing key 'name'")
    return GridColumn(_text(entry["name"], f"{context}: name"), _flags(entry, context))


def _check_distinct(names: Sequence[str], context: str) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise GridError(f"{context}: '{repeated[0]}' is repeated")


def _is_seed(value) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) < MOST_DIGITS and int(value) < 2**63


def _seeds(values, context: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not values or not all(map(_is_seed, values)):
        raise GridError(f"{context}: expected a list of whole numbers, got {shown(values)}")
    seeds = tuple(map(int, values))
    _check_distinct([str(seed) for seed in seeds], context)  # 2 and 02 are one seed
    return seeds


def _references(
    values: Mapping, rows: Sequence[GridRow], columns: Sequence[GridColumn], path: Path
) -> tuple[str | None, str | None]:
    compare = _mapping(values.get("compare", {}), f"{path}: compare")
    _check_keys(compare, {"rows", "columns"}, f"{path}: compare")
    for key, known in (("rows", rows), ("columns", columns)):
        if key in compare and compare[key] not in [entry.name for entry in known]:
            raise GridError(f"{path}: compare: {key}: no '{compare[key]}' among the {key}")
    return compare.get("rows"), compare.get("columns")


def _published(
    values, rows: Sequence[GridRow], columns: Sequence[GridColumn], context: str
) -> tuple[dict[tuple[str, str], Published], str]:
    _check_keys(_mapping(values, context), {"source", "rows"}, context)
    published = {}
    row_names, column_names = {known.name for known in rows}, {known.name for known in columns}
    for row, numbers in _mapping(values.get("rows", {}), f"{context}: rows").items():
        if row not in row_names:
            raise GridError(f"{context}: no row '{row}'")
        for column, text in _mapping(numbers, f"{context}: {row}").items():
            if column not in column_names:
                raise GridError(f"{context}: {row}: no column '{column}'")
            published[row, column] = _number(text, f"{context}: {row}: {column}")
    return published, _text(values.get("source", ""), f"{context}: source")


def _number(text, context: str) -> Published:
    try:
        mean, _, error = _text(text, context).replace("±", "+-").partition("+-")
        published = Published(float(mean), float(error) if error else None)
        if not all(map(math.isfinite, (published.mean, published.standard_error or 0.0))):
            raise ValueError("not finite")
        return published
    except ValueError:
        raise GridError(f"{context}: expected a number as in 0.905 +- 0.002, got '{text}'") from None
