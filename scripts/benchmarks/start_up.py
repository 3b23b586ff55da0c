"""Seconds until a command answers: its help, an error in a flag, the import of the package, a training's first epoch.

    python scripts/benchmarks/start_up.py [--rounds 5] [--enc_mode inv complete]

Each number is of a process of its own, from its start. The training reads the bundled zoo, which an earlier process has
cached. The machine should be idle.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer.cli.command_line import positive_int, run_command

PACKAGE = Path(__file__).parents[2] / "nfn_transformer"
COMMANDS = ("main", "xgb", "gbm", "predict", "make_zoo", "reproduce")

# Ends the process at the first epoch, in which it waits for nothing but the training steps.
FIRST_EPOCH = """
import os, sys
from nfn_transformer import main
from nfn_transformer.cli.command_line import run_command

def train(arguments):
    from nfn_transformer.training.run import Run
    Run.begin_epoch = lambda run, epoch: os._exit(0)
    return main.main(arguments)

run_command(train)
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive_int, default=5, help="processes of each kind; the median counts")
    parser.add_argument("--enc_mode", nargs="*", default=["inv", "complete"], help="encoders of the trainings")
    flags = parser.parse_args(arguments)
    kinds = {"import nfn_transformer": (["-c", "import nfn_transformer"], 0), "Python alone": (["-c", "pass"], 0)}
    for name in COMMANDS:
        kinds[f"{name}.py --help"] = ([str(PACKAGE / f"{name}.py"), "--help"], 0)
        kinds[f"{name}.py --no_such_flag"] = ([str(PACKAGE / f"{name}.py"), "--no_such_flag"], 2)
    for mode in flags.enc_mode:
        kinds[f"main.py --enc_mode {mode}, first epoch"] = (["-c", FIRST_EPOCH, "--enc_mode", mode], 0)
    with tempfile.TemporaryDirectory() as folder:
        for mode in flags.enc_mode[:1]:  # leaves the cache
            _seconds(*kinds[f"main.py --enc_mode {mode}, first epoch"], folder)
        rounds = [{kind: _seconds(*kinds[kind], folder) for kind in kinds} for _ in range(flags.rounds)]
    print("| | median, s | least, s |\n| --- | --- | --- |")
    for kind in kinds:
        seconds = sorted(each[kind] for each in rounds)
        print(f"| {kind} | {seconds[len(seconds) // 2]:.2f} | {seconds[0]:.2f} |")
    return 0


def _seconds(argv: Sequence[str], status: int, folder: str) -> float:
    """Return the seconds of a process with this exit status."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, *argv], cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if run.returncode != status:
        raise RuntimeError(f"{' '.join(argv)} ended with {run.returncode}: {run.stderr}")
    return seconds


if __name__ == "__main__":
    run_command(main)
