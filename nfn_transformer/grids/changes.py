"""Changes of a grid from the command line: other seeds, and other values of flags."""

import re
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import NoReturn

from nfn_transformer.errors import UserError
from nfn_transformer.grids.grid_file import Grid

Parsers = Mapping[str, Callable[[], ArgumentParser]]
"""Functions that build the parsers of commands, by the names that rows use."""


def change_grid(grid: Grid, parsers: Parsers, seeds: Sequence[int] | None, settings: Sequence[str]) -> Grid:
    """Return a grid with other seeds, and with other values of flags in all rows whose command has them.

    Args:
        grid: to change.
        parsers: of the commands.
        seeds: in place of the grid's; None: its own.
        settings: texts NAME=VALUE.

    Raises:
        UserError: a text has another form, no row has such a flag, its value is wrong, or columns set the flag.
    """
    if seeds is not None:
        grid = replace(grid, seeds=tuple(seeds))
    for text in settings:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UserError(f"--set {text}: expected NAME=VALUE, as in epochs=5")
        for column in grid.columns:
            if name in column.flags:
                raise UserError(f"--set {text}: cannot be combined with column '{column.name}', which sets {name}")
        commands = {row.command for row in grid.rows if row.command in parsers}
        having = {command for command in commands if _has(parsers[command](), name, value, text)}
        if not having:
            raise UserError(f"--set {text}: expected a flag of {', '.join(sorted(commands))}, got {name}")
        rows = (replace(r, flags={**r.flags, name: value}) if r.command in having else r for r in grid.rows)
        grid = replace(grid, rows=tuple(rows))
    if settings:
        about = f"{grid.about} Changed from the grid: {', '.join(settings)}.".strip()
        grid = replace(grid, about=about, published={})
    return grid


def _has(parser: ArgumentParser, name: str, value: str, text: str) -> bool:
    """Return whether a parser has a flag.

    Raises:
        UserError: the flag's value is wrong.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"--set {text}: {message}")

    parser.error = refuse  # type: ignore[method-assign]
    _, unknown = parser.parse_known_args([f"--{name}={value}"])
    return not unknown


def table_name(grid: Grid, seeds: Sequence[int] | None, settings: Sequence[str]) -> str:
    """Return the name of the folder for a grid's table, which is another one where the grid is changed."""
    changes = [f"seeds={','.join(map(str, seeds))}"] if seeds is not None else []
    text = "-".join([grid.path.stem, *changes, *settings])
    name = re.sub(r"[^\w.,=+-]", "_", text)
    return name if len(name) <= 100 and name == text else f"{name[:90]}-{sha256(text.encode()).hexdigest()[:8]}"
