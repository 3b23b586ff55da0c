"""Run a grid of trainings that a small file describes, and write its table; finished cells are never run again.

python nfn_transformer/reproduce.py scripts/tables/smoke.yaml
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer import atomic_files, gbm, xgb
from nfn_transformer import main as network
from nfn_transformer.bundled import TABLES, find_bundled
from nfn_transformer.cli.command_line import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    Parser,
    add_boolean,
    check_device_name,
    find_device,
    run_command,
    started_as,
)
from nfn_transformer.grids import rendering
from nfn_transformer.grids.cells import Cell, Impossible, plan, results_of
from nfn_transformer.grids.execution import Failure, Interrupted, run_cells
from nfn_transformer.grids.figure import save_figure
from nfn_transformer.grids.grid_file import read_grid
from nfn_transformer.grids.results_table import Table, build_table
from nfn_transformer.launch.flags import add_launcher_flags, build_launcher, launcher_parameters

COMMANDS = {"main": network.COMMAND, "xgb": xgb.COMMAND, "gbm": gbm.COMMAND}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = Parser(
        "reproduce.py",
        "Run a grid of trainings, rows (models) x columns (settings) x seeds, and write its table as "
        "Markdown, CSV, LaTeX and a figure. The same command goes on where an earlier one was stopped.",
        (
            "python nfn_transformer/reproduce.py scripts/tables/smoke.yaml --jobs 2",
            "python nfn_transformer/reproduce.py scripts/tables/smoke.yaml --report",
        ),
    )
    parser.add_argument("grid", type=Path, help="file of the grid, or the name of a bundled one (smoke.yaml)")
    parser.add_argument("--out_dir", type=Path, help="folder of the table (default: runs/tables/NAME OF THE GRID)")
    parser.add_argument(
        "--cells", type=Path, default=Path("runs/cells"), help="folder of the cells' run directories; tables share it"
    )
    parser.add_argument("--data_path", help="zoo of all cells, in place of the grid's own")
    parser.add_argument("--device", default="auto", help="device of the cells: auto, cpu, cuda, ...")
    add_launcher_flags(parser, "cells", "as many as there are")
    add_boolean(
        parser, "--report", False, "run nothing; write the table of what is finished (the zoo is read to know it)"
    )
    return parser


def _write(table: Table, folder: Path, command: str, problems: Sequence[str]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    text = rendering.markdown(table, command, problems)
    atomic_files.write_text(folder / "table.md", text)
    atomic_files.write_text(folder / "table.tex", rendering.latex(table))
    atomic_files.write_csv(folder / "table.csv", rendering.SUMMARY_HEADER, rendering.summary_rows(table))
    atomic_files.write_csv(folder / "cells.csv", rendering.CELL_HEADER, rendering.cell_rows(table))
    save_figure(table, folder / "figure.png")
    return text


def _problems(
    impossible: Sequence[Impossible], failures: Sequence[Failure], unusable: Sequence[str], unfinished: int
) -> list[str]:
    problems = [f"column '{cells.column}' cannot be run: {cells.reason}" for cells in impossible]
    failed = [f"{failure.name}: failed, see {failure.log}: {failure.reason}" for failure in failures]
    failed += [problem for problem in unusable if not any(problem.startswith(f"{f.name}: ") for f in failures)]
    rest = unfinished - len(failed)
    return problems + failed + ([f"{rest} cells are not finished"] if rest > 0 else [])


def _raise_interrupt(*_) -> None:
    raise KeyboardInterrupt


def _run(cells: Sequence[Cell], flags: argparse.Namespace) -> tuple[list[Failure], int]:
    """Run the unfinished cells; return those that failed, and the exit status 0, or 130 if interrupted."""
    for ending in (signal.SIGTERM, signal.SIGHUP):  # otherwise the cells would be left running
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(ending, _raise_interrupt)
    flags.cells.mkdir(parents=True, exist_ok=True)
    launcher = build_launcher(flags, flags.cells.resolve() / "submitit")
    done = sum(cell.job.is_finished() for cell in cells)
    print(f"{len(cells)} cells, {done} of them finished; cells in {flags.cells}", flush=True)
    try:
        return run_cells(cells, launcher), 0
    except Interrupted as error:
        advice = "; ".join(["the same command goes on from here", *filter(None, [error.advice])])
        print(f"\ninterrupted; {advice}", file=sys.stderr)
        return [], EXIT_INTERRUPTED


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 1 if a cell is missing in the end, 130 on Ctrl-C or SIGTERM."""
    flags = build_parser().parse_args(arguments)
    check_device_name(flags.device)
    launcher_parameters(flags)
    if flags.launcher != "slurm":
        find_device(flags.device)
    grid = read_grid(find_bundled(flags.grid, TABLES))
    cells, impossible = plan(grid, COMMANDS, flags.cells, flags.device, flags.data_path)
    print(grid.title)
    failures, status = ([], 0) if flags.report else _run(cells, flags)
    results, unusable = results_of(cells)
    problems = _problems(impossible, failures, unusable, len(cells) - len(results))
    folder = flags.out_dir or Path("runs/tables") / flags.grid.stem
    # Flags that say how or if cells were run are no part of the command that reproduces the table.
    data_path = [] if flags.data_path is None else ["--data_path", flags.data_path]
    command = f"{started_as('reproduce.py')} {shlex.join([str(flags.grid), *data_path])}"
    text = _write(build_table(grid, results), folder, command, problems)
    print(f"\n{text}\nwritten to {folder}: table.md, table.tex, table.csv, cells.csv, figure.png")
    return status or (EXIT_FAILURE if problems else 0)


if __name__ == "__main__":
    run_command(main)
