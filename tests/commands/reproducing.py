"""Running reproduce.py on small grids, in this process or in one of its own, and looking at what it leaves."""

import csv
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from running import COSTS, ENVIRONMENT, command

from nfn_transformer import reproduce

QUICK = {"name": "quick", "command": "main", "flags": {"enc_mode": "no", "epochs": 2}}
# 30 epochs of 42 steps each: seconds in which it can be stopped.
LONG = {"name": "long", "command": "main", "flags": {"enc_mode": "no", "epochs": 30, "batch_size": 1}}
TREES = {"name": "trees", "command": "xgb", "flags": {}}


def here(*arguments) -> int:
    """Run the command in this process; its cells are processes as ever."""
    return reproduce.main([str(argument) for argument in arguments])


def table(name: str = "table.csv") -> dict[str, dict[str, str]]:
    """Row -> its line in a grid of one column."""
    with open(Path("table") / name, newline="") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


def runs() -> list[Path]:
    return sorted(path for path in Path("cells").glob("digits-*") if path.is_dir())


def run_of(**values) -> Path:
    """The only run whose training configuration has these values."""
    found = []
    for path in runs():
        training = json.loads((path / "config.json").read_text())["training"]
        if values.items() <= training.items():
            found.append(path)
    (path,) = found
    return path


def starts(path: Path) -> list[str]:
    """The commands in a cell's log."""
    log = path.with_name(f"{path.name}.log").read_text()
    return [line for line in log.splitlines() if line.startswith("$ ")]


def state_of(path: Path) -> dict[Path, tuple]:
    """Content and time of everything that belongs to a cell."""
    files = [file for file in path.parent.rglob("*") if file.is_file() and str(file).startswith(str(path))]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files if file.suffix != ".lock"}


def outcome(path: Path) -> tuple:
    """Everything that must be equal between two runs with one seed: all but costs and places."""
    with open(path / "metrics.csv", newline="") as file:
        metrics = [{name: value for name, value in row.items() if name not in COSTS} for row in csv.DictReader(file)]
    files = [(path / name).read_text() for name in ("results.json", "split.json", "test_predictions.csv")]
    return metrics, (path / "best.safetensors").read_bytes(), files


def until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it never came"
        assert process is None or process.poll() is None, "the command has ended"
        time.sleep(0.02)


def started(*arguments, **environment) -> subprocess.Popen:
    return subprocess.Popen(
        command("reproduce.py", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **environment},
    )
