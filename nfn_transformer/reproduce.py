"""Run a grid of trainings that a small file describes, and write its table; finished cells are never run again.

python nfn_transformer/reproduce.py scripts/tables/smoke.yaml
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer import gbm, xgb
from nfn_transformer import main as network
from nfn_transformer.bundled import TABLES, find_bundled
from nfn_transformer.cli.command_line import (
    Parser,
    add_boolean,
    check_device_name,
    run_command,
    seed_list,
)
from nfn_transformer.grids.changes import change_grid
from nfn_transformer.grids.grid_file import read_grid
from nfn_transformer.launch.flags import add_launcher_flags, launcher_parameters

COMMANDS = {"main": network.COMMAND, "xgb": xgb.COMMAND, "gbm": gbm.COMMAND}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = Parser(
        "reproduce.py",
        "Run a grid of trainings, rows (models) x columns (settings) x seeds, and write its table as "
        "Markdown, CSV, LaTeX and a figure. The same command goes on where an earlier one was stopped.",
        (
            "python nfn_transformer/reproduce.py scripts/tables/smoke.yaml --jobs 2",
            "python nfn_transformer/reproduce.py scripts/tables/smoke.yaml --seeds 1 --set epochs=5",
            "python nfn_transformer/reproduce.py scripts/tables/smoke.yaml --runs runs --report",
        ),
    )
    parser.add_argument("grid", type=Path, help="file of the grid, or the name of a bundled one (smoke.yaml)")
    parser.add_argument(
        "--out_dir", type=Path, help="folder of the table (default: runs/tables/GRID, a changed one beside it)"
    )
    parser.add_argument(
        "--cells", type=Path, default=Path("runs/cells"), help="folder of the cells' run directories; tables share it"
    )
    parser.add_argument("--data_path", help="zoo of all cells, in place of the grid's own")
    parser.add_argument("--seeds", type=seed_list, help="seeds in place of the grid's own, as in 1,2")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of a flag, as in epochs=5, in all rows whose command has it; several times for several",
    )
    parser.add_argument(
        "--runs",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="folders of runs: a finished one with a cell's configuration, seed and data is taken in its place",
    )
    parser.add_argument("--device", default="auto", help="device of the cells: auto, cpu, cuda, ...")
    add_launcher_flags(parser, "cells", "as many as there are")
    add_boolean(
        parser, "--report", False, "run nothing; write the table of what is finished (the zoo is read to know it)"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 1 if a cell is missing in the end, 130 on Ctrl-C or SIGTERM."""
    flags = build_parser().parse_args(arguments)
    check_device_name(flags.device)
    launcher_parameters(flags)
    grid = read_grid(find_bundled(flags.grid, TABLES))
    parsers = {name: command.build_parser for name, command in COMMANDS.items()}
    grid = change_grid(grid, parsers, flags.seeds, flags.set)
    # PyTorch and all that trainings need take seconds to import: flags and the grid's file are checked before.
    from nfn_transformer.cli.reproduce_command import run_grid

    return run_grid(grid, COMMANDS, flags)


if __name__ == "__main__":
    run_command(main)
