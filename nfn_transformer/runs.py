"""List runs with what they differ in, or compare some of them in a table.

python nfn_transformer/runs.py
python nfn_transformer/runs.py --compare RUN RUN
"""

import argparse
import json
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer.cli.command_line import Parser, run_command, started_as
from nfn_transformer.errors import UserError
from nfn_transformer.grids.recorded_runs import RecordedRun, differing, read_runs, setting_text
from nfn_transformer.printable import printable
from nfn_transformer.training.results import FEW, FINISHED, duration
from nfn_transformer.training.tasks import TASKS, TAU

_IN_NAME = frozenset(("model", "enc_mode", "cls_mode", "emb_mode", "library", "features"))
"""Settings that the name of a predictor tells."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = Parser(
        "runs.py",
        "List runs: the encoder and the branches beside it, or the tree model and its features; Kendall's tau, or "
        "another task's score, on the test side with its interval; time; and the settings in which they differ. "
        "Or compare runs in a table as reproduce.py makes it: seeds of one configuration are one row, and "
        "differences are paired where runs have tested the same networks.",
        (
            "python nfn_transformer/runs.py    # all runs in runs/",
            "python nfn_transformer/runs.py runs/cells",
            "python nfn_transformer/runs.py --compare runs/ONE runs/OTHER",
        ),
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder of runs, at any depth (default: runs)")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="RUN", help="run directories, or folders of runs, to compare"
    )
    parser.add_argument(
        "--out_dir", type=Path, help="with --compare: folder of the table and its picture (default: runs/compared)"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    flags = build_parser().parse_args(arguments)
    if flags.compare is None:
        if flags.out_dir is not None:
            raise UserError(f"--out_dir {flags.out_dir}: requires --compare")
        _list(flags.folder or Path("runs"))
        return 0
    if flags.folder is not None:
        raise UserError(f"--compare cannot be combined with a folder to list, got {flags.folder}")
    runs, problems = read_runs(flags.compare)
    problems += [f"{run.path} is not finished" for run in runs if run.result is None]
    finished = [run for run in runs if run.result is not None]
    if not finished:
        raise UserError(f"--compare {shlex.join(map(str, flags.compare))}: expected finished runs, got none")
    # NumPy and SciPy take a moment to import, and listing runs needs neither.
    from nfn_transformer.grids.comparison import compare_runs
    from nfn_transformer.grids.rendering import write_table

    command = f"{started_as('runs.py')} --compare {shlex.join(map(str, flags.compare))}"
    print(write_table(compare_runs(finished), flags.out_dir or Path("runs/compared"), command, problems))
    return 0


def _list(folder: Path) -> None:
    """Print a line for each run in a folder."""
    runs, problems = read_runs([folder])
    settings = [{**run.values, **run.settings("data", "predictor", "training")} for run in runs]
    for each in settings:
        for part in ("data", "predictor", "training"):
            del each[part]
    names = [name for name in differing(settings) if name not in _IN_NAME]
    usual = {}  # values of more than half of the runs that have the setting
    for name in names:
        value, count = Counter(json.dumps(each[name]) for each in settings if name in each).most_common(1)[0]
        if 2 * count > sum(name in each for each in settings):
            usual[name] = json.loads(value)
    is_tau = all(run.result is None or TASKS[run.result.task].score == TAU for run in runs)
    rows: list[tuple[str, ...]] = [("run", "model", "test tau" if is_tau else "test", "time", "differs in")]
    for run, own in zip(runs, settings, strict=True):
        where = str(run.path.relative_to(folder)) if run.path != folder else run.path.name
        time = duration(run.seconds) if run.seconds else "-"
        unusual = [name for name in names if name not in usual or own.get(name) != usual[name]]
        texts = where, run.name, _outcome(run), time, setting_text(own, unusual)
        rows.append(tuple(map(printable, texts)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]).rstrip())
    if usual:
        print(f"where nothing else is said: {printable(setting_text(usual, names), 2000)}")
    for problem in problems:
        print(f"damaged: {printable(problem)}")
    unfinished = sum(run.result is None for run in runs)
    print(f"{len(runs)} runs in {folder}, {unfinished} of them unfinished")


def _outcome(run: RecordedRun) -> str:
    """Return a run's score with its interval, or how far it is; tau goes without its name."""
    result = run.result
    if result is None:
        if run.values["data"].get("folds") and run.values["data"].get("fold") is None:
            return "unfinished folds"  # whose epochs or rounds their own directories tell
        unit = "epoch" if "epochs" in run.values["training"] else "round"
        return f"unfinished, {unit} {run.progress}"
    score = TASKS[result.task].score
    text = "undefined" if math.isnan(result.score) else f"{result.score:.4f}"
    text = text if score == TAU else f"{score.key} {text}"
    text += "" if math.isnan(result.low) else f" [{result.low:.4f}, {result.high:.4f}]"
    text += f" of {result.test} networks" if result.test < FEW else ""
    return text if result.status == FINISHED else f"{text}, stopped early"


if __name__ == "__main__":
    run_command(main)
