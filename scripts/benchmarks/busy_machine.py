"""Seconds of trainings and of zoo making alone and beside each other, with short waiting and with OpenMP's own.

    python scripts/benchmarks/busy_machine.py [--rounds 5] [--what inv complete zoo]

Each measurement is of processes of their own, and kinds take turns. Two ratios are printed: what short waiting costs
alone (at most 1.05), and the time beside another process of the same kind over the time alone (at most 2.5). The
machine should be idle.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer.cli.command_line import positive_int, run_command

PACKAGE = Path(__file__).parents[2] / "nfn_transformer"
POLICIES = {"short": {}, "OpenMP's own": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}}
"""Additions to the environment; the defaults of GNU's and LLVM's OpenMP count as a user's choice."""

_CHOICES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive_int, default=5, help="measurements of each kind; the median counts")
    parser.add_argument(
        "--what", nargs="+", default=["inv", "complete", "zoo"], help="encoders that are trained; zoo: a zoo is made"
    )
    parser.add_argument("--epochs", type=positive_int, default=4, help="epochs of a training; the first is left out")
    parser.add_argument("--runs", type=positive_int, default=16, help="networks of a zoo")
    flags = parser.parse_args(arguments)
    print("| | waiting | alone, s | beside another, s | beside / alone | alone / alone with OpenMP's own |")
    print("| --- | --- | --- | --- | --- | --- |")
    for what in flags.what:
        seconds: dict[tuple[str, int], list[float]] = {(name, count): [] for name in POLICIES for count in (1, 2)}
        for _ in range(flags.rounds):
            for (name, count), measured in seconds.items():
                measured.append(_measure(what, POLICIES[name], count, flags))
        middle = {kind: statistics.median(measured) for kind, measured in seconds.items()}
        for name in POLICIES:
            alone, beside, own = middle[name, 1], middle[name, 2], middle["OpenMP's own", 1]
            print(
                f"| {what} | {name} | {alone:.2f} | {beside:.2f} | {beside / alone:.2f} | {alone / own:.2f} |",
                flush=True,
            )
    return 0


def _measure(what: str, policy: dict[str, str], count: int, flags: argparse.Namespace) -> float:
    """Return the seconds of an epoch, or of a zoo, the mean of `count` processes at once."""
    environment = {name: value for name, value in os.environ.items() if name not in _CHOICES} | policy
    with tempfile.TemporaryDirectory() as folder:
        outs, start = [Path(folder) / f"out{number}" for number in range(count)], time.perf_counter()
        words = ["main.py", "--enc_mode", what, "--epochs", str(flags.epochs), "--warmup_epochs", "1", "--wandb", "no"]
        if what == "zoo":
            words = ["make_zoo.py", "--runs", str(flags.runs), "--epochs", "4"]
        argv = [sys.executable, str(PACKAGE / words[0]), *words[1:], "--device", "cpu"]
        goal = "--out" if what == "zoo" else "--out_dir"
        processes = [
            subprocess.Popen([*argv, goal, str(out)], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
            for out in outs
        ]
        statuses = [process.wait() for process in processes]
        if any(statuses):
            raise RuntimeError(f"{' '.join(argv)} failed")
        if what == "zoo":
            return time.perf_counter() - start
        return statistics.mean(_epoch_seconds(out) for out in outs)


def _epoch_seconds(run: Path) -> float:
    """Return the median seconds of a run's epochs, the first left out."""
    with open(run / "metrics.csv", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return statistics.median(seconds[1:] or seconds)


if __name__ == "__main__":
    run_command(main)
