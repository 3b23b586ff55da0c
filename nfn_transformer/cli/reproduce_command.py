"""Running of a grid by checked flags of reproduce.py: its cells, and its table."""

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nfn_transformer.cli.command_line import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    find_device,
    started_as,
)
from nfn_transformer.grids.cells import Cell, Command, Impossible, plan, results_of, take_runs
from nfn_transformer.grids.changes import table_name
from nfn_transformer.grids.execution import Failure, Interrupted, run_cells
from nfn_transformer.grids.grid_file import Grid
from nfn_transformer.grids.rendering import write_table
from nfn_transformer.grids.results_table import build_table
from nfn_transformer.launch.flags import build_launcher


def run_grid(grid: Grid, commands: Mapping[str, Command], flags: argparse.Namespace) -> int:
    """Run the unfinished cells of a grid and write its table.

    Returns:
        Exit status: 1 if a cell is missing in the end, 130 on Ctrl-C or SIGTERM.
    """
    if flags.launcher != "slurm":
        find_device(flags.device)
    cells, impossible = plan(grid, commands, flags.cells, flags.device, flags.data_path)
    folder = flags.out_dir or Path("runs/tables") / table_name(grid, flags.seeds, flags.set)
    # Flags that say how or if cells were run are no part of the command that reproduces the table.
    words = [str(flags.grid), *([] if flags.data_path is None else ["--data_path", flags.data_path])]
    words += [] if flags.seeds is None else ["--seeds", ",".join(map(str, flags.seeds))]
    words += [word for text in flags.set for word in ("--set", text)]
    words += ["--runs", *map(str, flags.runs)] if flags.runs else []
    command = f"{started_as('reproduce.py')} {shlex.join(words)}"
    print(f"{grid.title}\ntable in {folder}")
    earlier = folder / "table.md"
    if earlier.is_file() and f"\n    {command}\n" not in earlier.read_text(encoding="utf-8", errors="replace"):
        print(f"it replaces the table of another command, see {earlier}")
    if flags.runs:
        cells, taken = take_runs(cells, flags.runs)
        print(f"{taken} cells are runs in {', '.join(map(str, flags.runs))}")
    failures, status = ([], 0) if flags.report else _run(cells, flags)
    results, unusable = results_of(cells)
    problems = _problems(impossible, failures, unusable, len(cells) - len(results))
    print(f"\n{write_table(build_table(grid, results), folder, command, problems)}")
    return status or (EXIT_FAILURE if problems else 0)


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
