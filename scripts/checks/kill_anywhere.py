"""Kill commands at random moments and check that nothing is lost.

    python scripts/checks/kill_anywhere.py --moments 25 --file_moments 10

A training, the reading of a zoo into its cache, the making of a zoo, a grid of reproduce.py and predict.py --out are
ended by SIGKILL, SIGTERM and SIGINT: at random moments of their time, and in the midst of random file operations.
After each kill every file that bears its final name must be whole, and what was finished must stay. The same command,
or --resume, then goes on, and must leave the files of an unbroken run, byte for byte but for seconds and dates.

Each command runs in a fork of this process, which saves it Python's start. A grid's cells are processes as usual.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path

import matplotlib.figure  # noqa: F401 - forks need not import it then
import torch
from killed_commands import SCENARIOS, Command, Files, Grid, Inputs, Lost, Scenario, Training, check_whole

from nfn_transformer import main
from nfn_transformer.cli.command_line import run_command

REPOSITORY = Path(__file__).parents[2]
BUNDLED = REPOSITORY / "data/digits_transformers.zip"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FILE_OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")
NETWORKS = 60
LONGEST_SECONDS = 300.0


def start(command: Command, log: Path, kill_at: tuple[int, signal.Signals] | None, count_to: int | None = None) -> int:
    """Run a command in a fork; return its process id.

    Args:
        command: function and arguments.
        log: file for its output.
        kill_at: number of a file operation, and the signal that the process sends itself at it.
        count_to: descriptor to which the number of file operations is written at the end.
    """
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        operations = 0

        def count(event: str, arguments: tuple) -> None:
            nonlocal operations
            is_read = event == "open" and not (
                isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if event in FILE_OPERATIONS and not is_read:
                operations += 1
                if kill_at is not None and operations == kill_at[0]:
                    os.kill(os.getpid(), kill_at[1])

        sys.addaudithook(count)
        try:
            run_command(*command)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        if count_to is not None:
            os.write(count_to, str(operations).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(process: int, seconds: float) -> int | None:
    """Return a process's exit code, negative for a signal; None if it has not ended after some seconds."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(min(0.002, max(end - time.monotonic(), 0)))


def end_of(process: int, log: Path) -> int:
    """Return the exit code of a process that must end by itself."""
    status = wait(process, LONGEST_SECONDS)
    if status is None:
        os.kill(process, signal.SIGKILL)
        wait(process, LONGEST_SECONDS)
        raise Lost(f"{log}: has not ended after {LONGEST_SECONDS:.0f} s")
    return status


def go_on(scenario: Scenario, folder: Path) -> int:
    """Run what is left until all is finished; return the number of commands."""
    for attempt in range(4):
        command = scenario.command(folder)
        if command is None:
            return attempt
        log = folder / ".log"
        status = end_of(start(command, log, None), log)
        if status != 0:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise Lost(f"{log}: the command that goes on ended with status {status}: {' '.join(last)}")
    raise Lost("is not finished after 4 commands")


def unbroken(scenario: Scenario, folder: Path) -> tuple[Files, float, int]:
    """Return the files of an unbroken run, the seconds of its first command and the number of its file operations."""
    folder.mkdir()
    scenario.prepare(folder)
    reading, writing = os.pipe()
    begin, command = time.monotonic(), scenario.command(folder)
    assert command is not None
    status = end_of(start(command, folder / ".log", None, writing), folder / ".log")
    seconds = time.monotonic() - begin
    if status != 0:
        raise Lost(f"the unbroken command ended with status {status}: {(folder / '.log').read_text()[-2000:]}")
    operations = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    go_on(scenario, folder)
    return scenario.outcome(folder), seconds, operations


def try_moment(
    scenario: Scenario, folder: Path, ending: signal.Signals, expected: Files, delay: float | None, operation: int
) -> str:
    """Kill a command once, go on and compare; return how the command ended.

    Args:
        scenario: what is killed.
        folder: a new folder.
        ending: the signal.
        expected: files of the unbroken run.
        delay: seconds to the signal; None to send it at a file operation.
        operation: number of that file operation.
    """
    folder.mkdir()
    scenario.prepare(folder)
    command = scenario.command(folder)
    assert command is not None
    process = start(command, folder / ".log", None if delay is not None else (operation, ending))
    status = wait(process, LONGEST_SECONDS if delay is None else delay)
    if status is None:
        os.kill(process, ending)
        status = end_of(process, folder / ".log")
    check_whole(folder)
    before = scenario.finished(folder)
    resumed = go_on(scenario, folder)
    check_whole(folder)
    if isinstance(scenario, Training | Grid) and not before <= scenario.finished(folder):
        raise Lost(f"made anew: {sorted(before - scenario.finished(folder))[0]}")
    outcome = scenario.outcome(folder)
    for name in expected.keys() | outcome.keys():
        if expected.get(name) != outcome.get(name):
            what = "differs" if name in expected and name in outcome else "is missing" if name in expected else "is new"
            raise Lost(f"{name} {what}")
    return "ended before" if status == 0 else "gone on" if resumed else "was finished"


def check(name: str, inputs: Inputs, place: Path, options: argparse.Namespace, random_: random.Random) -> list[str]:
    """Kill one scenario at all its moments; print a line for each signal, and return the faults."""
    scenario, faults, number = SCENARIOS[name](inputs), [], 0
    expected, seconds, operations = unbroken(scenario, place / "moment_0")
    print(f"{name}: {seconds:.1f} s, {operations} file operations, {len(expected)} files", flush=True)
    for ending in SIGNALS:
        ends: Counter[str] = Counter()
        for moment in range(options.moments + options.file_moments):
            number += 1
            folder = place / f"moment_{number}"
            delay = random_.uniform(0, seconds) if moment < options.moments else None
            operation = random_.randint(1, operations)
            when = f"after {delay:.3f} s" if delay is not None else f"at file operation {operation}"
            try:
                ends[try_moment(scenario, folder, ending, expected, delay, operation)] += 1
                shutil.rmtree(folder)
            except Lost as error:
                faults.append(f"{name}, {ending.name} {when} ({folder}): {error}")
                print(f"  {faults[-1]}", flush=True)
        print(f"  {ending.name}: " + ", ".join(f"{count} {end}" for end, count in sorted(ends.items())), flush=True)
    return faults


def make_inputs(place: Path) -> Inputs:
    """Write the folder of a small zoo, its cache, and a finished run on it."""
    zoo = place / "zoo"
    with zipfile.ZipFile(BUNDLED) as archive:
        (table,) = [name for name in archive.namelist() if name.endswith("metadata/digits.csv")]
        lines = archive.read(table).decode().splitlines()[: NETWORKS + 1]
        (zoo / "metadata").mkdir(parents=True)
        (zoo / "digits").mkdir()
        (zoo / "metadata/digits.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for row in csv.DictReader(lines):
            (zoo / row["ckpt_file"]).write_bytes(
                archive.read(table.removesuffix("metadata/digits.csv") + row["ckpt_file"])
            )
    inputs = Inputs(zoo, place / "run")
    flags = "--enc_mode statnn --cls_mode statnn --epochs 2 --dataset digits --device cpu --wandb False"
    command = (main.main, [*flags.split(), "--data_path", str(zoo), "--out_dir", str(inputs.run)])
    if status := end_of(start(command, place / "inputs.log", None), place / "inputs.log"):
        raise Lost(f"{place / 'inputs.log'}: status {status}")
    return inputs


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=25, help="random moments of each signal (default: %(default)s)")
    parser.add_argument(
        "--file_moments", type=int, default=10, help="random file operations of each signal (default: %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="scenarios (default: all)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a fork holds no other thread
    place = Path(tempfile.mkdtemp(prefix="kill_anywhere_"))
    faults: list[str] = []
    inputs = make_inputs(place)
    for name in options.only:
        folder = place / name.replace(" ", "_")
        folder.mkdir()
        faults += check(name, inputs, folder, options, random.Random(f"{options.seed} {name}"))
    print(f"{len(faults)} faults" + (f"; folders kept in {place}" if faults else ""))
    if not faults:
        shutil.rmtree(place)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run())
