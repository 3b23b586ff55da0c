"""reproduce.py as users run it: stopped in every way and resumed, with failing cells, changed grids, and in jobs."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import ENVIRONMENT, command, fail, run

from nfn_transformer import main as network
from nfn_transformer import reproduce
from nfn_transformer.grids import execution, launchers

QUICK = {"name": "quick", "command": "main", "flags": {"enc_mode": "no", "epochs": 2}}
# 30 epochs of 42 steps each: seconds in which it can be stopped.
LONG = {"name": "long", "command": "main", "flags": {"enc_mode": "no", "epochs": 30, "batch_size": 1}}
TREES = {"name": "trees", "command": "xgb", "flags": {}}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _signals():
    """Ctrl-C is heard also where a shell has started the tests in its background; what was set before comes back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def grid(small_zoo, tmp_path):
    """Writes grids of these rows, as JSON, which is YAML; the words that run one."""

    def written(*rows: dict, data_path: Path | str = small_zoo, **keys) -> tuple:
        columns = [{"name": "all", "flags": {"cut_off": 0}}]
        flags = {"dataset": "digits", "data_path": str(data_path), "wandb": "False"}
        values = {"title": "A cut", "rows": rows, "columns": columns, "seeds": [1], "flags": flags, **keys}
        (tmp_path / "cut.yaml").write_text(json.dumps(values))
        places = ("--cells", tmp_path / "cells", "--out_dir", tmp_path / "table")
        return (tmp_path / "cut.yaml", *places, "--device", "cpu")

    return written


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
    """Everything that must be equal between two runs with one seed: all but seconds and places."""
    with open(path / "metrics.csv", newline="") as file:
        metrics = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
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


@pytest.fixture(scope="module")
def direct(small_zoo, tmp_path_factory) -> tuple:
    """The outcome of the long cell where main.py is run by itself."""
    path = tmp_path_factory.mktemp("direct") / "run"
    words = [word for name, value in LONG["flags"].items() for word in (f"--{name}", value)]
    words += ["--dataset", "digits", "--data_path", small_zoo, "--cut_off", 0, "--seed", 1, "--wandb", "False"]
    done = run("main.py", *words, "--device", "cpu", "--out_dir", path)
    assert done.returncode == 0, done.stderr
    return outcome(path)


def test_a_killed_command_goes_on(grid, direct, capsys):
    words = grid(QUICK, LONG)
    # Not PYTHONUNBUFFERED: who sends the output to a file must see in it what is finished.
    process = started(*words, PYTHONUNBUFFERED="")
    until(lambda: "[1/2] quick | all | seed 1: tau " in process.stdout.readline(), process)
    until(lambda: list(Path("cells").glob("*/metrics.csv"))[1:], process)
    process.kill()
    process.communicate(timeout=60)
    quick, long = run_of(epochs=2), run_of(epochs=30)
    before = state_of(quick)
    assert (quick / "results.json").is_file()
    assert not Path("table").exists()

    assert here(*words) == 0
    assert "2 cells, 1 of them finished" in capsys.readouterr().out
    assert state_of(quick) == before
    assert len(starts(quick)) == 1
    assert len(starts(long)) == 1  # what the killed command had started was waited for
    assert outcome(long) == direct
    for path, name in ((quick, "quick"), (long, "long")):
        tau = json.loads((path / "results.json").read_text())["test"]["tau"]
        assert float(table()[name]["tau_mean"]) == float(table("cells.csv")[name]["tau"]) == tau
        assert f"| {name} | {tau:.3f} |" in Path("table/table.md").read_text().replace("**", "")
    names = {"table.md", "table.tex", "table.csv", "cells.csv", "figure.png"}
    assert {path.name for path in Path("table").iterdir()} == names

    cells = state_of(quick) | state_of(long)
    assert here(*words) == 0
    said = capsys.readouterr().out
    assert "2 cells, 2 of them finished" in said
    assert "[2/2]" not in said
    assert state_of(quick) | state_of(long) == cells


def interrupted(words: tuple, stop: signal.Signals) -> Path:
    """The run of the only cell, stopped in its middle."""
    process = started(*words)
    until(lambda: list(Path("cells").glob("*/metrics.csv")), process)
    process.send_signal(stop)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the same command goes on from here" in errors
    assert "1 cells are not finished" in said
    (path,) = runs()
    log = path.with_name(f"{path.name}.log")
    assert "interrupted; go on by: " in log.read_text()
    assert not (path / "results.json").exists()
    assert table()["long"]["seeds"] == "0"
    return path


def test_a_command_in_a_shells_background_stops_its_cells(grid):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as such a shell does; children inherit it
    interrupted(grid(LONG), signal.SIGTERM)


def test_an_interrupted_command_stops_its_cells_and_goes_on(grid, direct, capsys):
    words = grid(LONG)
    path = interrupted(words, signal.SIGINT)
    assert here(*words) == 0
    assert capsys.readouterr().err == ""
    first, second = starts(path)
    assert f"--out_dir {path.resolve()}" in first
    assert f"--resume {path.resolve()}" in second
    assert outcome(path) == direct
    assert table()["long"]["seeds"] == "1"


def test_cells_that_fail_stop_no_other_and_are_tried_again(grid, capsys):
    diverging = {**QUICK, "name": "diverging", "flags": {**QUICK["flags"], "lr": "1e30"}}
    words = grid(diverging, TREES, {**QUICK, "name": "good"}, compare={"rows": "good"})
    cells, _ = reproduce.plan(reproduce.read_grid(words[0]), reproduce.COMMANDS, Path("cells"), "auto", None)
    place = {cell.row: Path(cell.task.directory) for cell in cells}
    place["trees"].parent.mkdir()
    place["trees"].write_text("something else")

    assert here(*words, "--jobs", 2) == 1
    said = capsys.readouterr().out
    assert "[3/3]" in said
    missing = Path("table/table.md").read_text().partition("## Missing")[2]
    for name, reason in (("diverging", "no epoch was finished"), ("trees", "is not an empty directory")):
        assert f"{name} | all | seed 1: failed, see {place[name]}.log" in said
        assert f"- {name} \\| all \\| seed 1: failed, see {place[name]}.log: " in missing
        assert reason in missing
        assert table()[name]["tau_mean"] == ""
        assert table()[name]["seeds"] == "0"
    assert table()["good"]["seeds"] == "1"
    assert "not finished" not in missing
    assert len(starts(place["diverging"])) == len(starts(place["trees"])) == 1
    before = state_of(place["good"])

    place["trees"].unlink()
    assert here(*words, "--jobs", 2) == 1
    missing = Path("table/table.md").read_text().partition("## Missing")[2]
    assert "diverging" in missing
    assert "trees" not in missing
    assert [len(starts(place[name])) for name in ("diverging", "trees", "good")] == [2, 2, 1]
    assert table()["trees"]["seeds"] == "1"
    assert state_of(place["good"]) == before


def test_the_problem_of_a_cell_hides_that_of_no_other():
    failures = [reproduce.Failure("a | x | seed 1", "a.log", "words")]
    unusable = ["a | x | seed 12: holds another run", "a | x | seed 1: holds another run"]
    assert reproduce._problems([], failures, unusable, 5) == [
        "a | x | seed 1: failed, see a.log: words",
        "a | x | seed 12: holds another run",
        "3 cells are not finished",
    ]


def test_other_flags_and_another_zoo_are_other_cells(small_zoo, tmp_path, grid, capsys):
    zoo = Path(shutil.copytree(small_zoo, tmp_path / "zoo", ignore=shutil.ignore_patterns(".zoo_cache")))
    assert here(*grid(TREES, data_path=zoo)) == 0
    (first,) = runs()
    before = state_of(first)
    with_cut_off = grid(TREES, data_path=zoo, columns=[{"name": "all", "flags": {"cut_off": 0.1}}])
    assert here(*with_cut_off) == 0
    (second,) = set(runs()) - {first}
    assert json.loads((second / "config.json").read_text())["data"]["cut_off"] == 0.1
    assert state_of(first) == before

    words = grid(TREES, data_path=zoo)
    assert here(*words, "--report") == 0  # the old cell again
    file = sorted(zoo.glob("digits/*.pt"))[0]
    torch.save({key: value * 1.5 for key, value in torch.load(file, weights_only=True).items()}, file)
    assert here(*words, "--report") == 1
    assert "1 cells are not finished" in capsys.readouterr().out
    assert table()["trees"]["seeds"] == "0"
    assert state_of(first) == before


def test_report_runs_nothing(grid):
    columns = [{"name": "all", "flags": {"cut_off": 0}}, {"name": "none", "flags": {"cut_off": 0.9999}}]
    assert here(*grid(QUICK, TREES, columns=columns), "--report") == 1
    assert not Path("cells").exists()
    text = Path("table/table.md").read_text()
    assert "| quick | \N{EN DASH} [0 of 1 seeds] |" in text
    assert "- column 'none' cannot be run: " in text
    assert "- 2 cells are not finished" in text
    assert Path("table/figure.png").stat().st_size > 1000


def test_data_path_overrides_the_grids_own(grid, small_zoo, capsys):
    words = grid(TREES, data_path="absent")
    assert "absent: no such file or folder" in fail(reproduce.main, capsys, *words)
    assert here(*words, "--data_path", small_zoo, "--jobs", 2) == 0
    (path,) = runs()
    assert json.loads((path / "config.json").read_text())["data"]["data_path"] == str(small_zoo.resolve())
    assert here(*grid(TREES), "--report") == 0  # the same cell


def test_submitit_on_this_machine(grid):
    # Through a process of its own, in which any warning of submitit would be an error.
    done = run("reproduce.py", *grid(QUICK), "--launcher", "local", "--slurm", "timeout_min=60")
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = runs()
    assert len(starts(path)) == 1
    assert table()["quick"]["seeds"] == "1"
    assert list(Path("cells/submitit").glob("*_submitted.pkl"))
    assert network.main(["--resume", str(path)]) == 0  # it is an ordinary run, and finished


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.yaml",), "absent.yaml: no such file; for examples see scripts/tables/"),
        (("GRID", "--slurm", "a=1"), "--slurm a=1: needs --launcher slurm (or local)"),
        (("GRID", "--launcher", "local", "--slurm", "x"), "--slurm x: expected NAME=VALUE, as in timeout_min=600"),
        (("GRID", "--launcher", "local", "--slurm", "a=1", "--slurm", "=2"), "--slurm =2: expected NAME=VALUE"),
        (("GRID", "--launcher", "local", "--slurm", "memory=3"), "--launcher local: Parameter 'memory' need to be"),
        (("GRID", "--launcher", "local", "--slurm", "timeout_min=long"), '--launcher local: Parameter "timeout_min"'),
        (("GRID", "--launcher", "pbs"), "argument --launcher: invalid choice: 'pbs'"),
        (("GRID", "--device", "cuda:9"), "--device cuda:9: this machine has "),
        (("GRID", "--device", "tpu"), "--device tpu: expected auto, cpu, cuda or cuda:N"),
        (("GRID", "--jobs", "0"), "argument --jobs: must be at least 1"),
        (("GRID", "--report", "perhaps"), "expected True or False, got 'perhaps'"),
        (("GRID", "--data_path", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_bad_input_is_named(arguments, message, grid, capsys):
    words = grid(QUICK)
    rest = [word for argument in arguments for word in (words if argument == "GRID" else (argument,))]
    assert message in fail(reproduce.main, capsys, *rest)
    assert runs() == []
    assert not Path("table").exists()


def test_a_bad_flag_in_a_grid_is_named(grid, capsys):
    words = grid({**QUICK, "flags": {"epochs": "two"}})
    errors = fail(reproduce.main, capsys, *words)
    assert "cut.yaml: row 'quick', column 'all': argument --epochs: expected a whole number, got 'two'" in errors


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs, of which nothing is ever used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")


@pytest.mark.usefixtures("gpus")
def test_jobs_take_gpus_in_turn(monkeypatch):
    def given(jobs: int, device: str = "auto") -> list:
        return [slot.get("CUDA_VISIBLE_DEVICES") for slot in reproduce._environments(jobs, device)]

    assert given(3) == given(3, "cuda") == ["0", "1", "0"]
    assert given(1) == ["0"]
    assert given(2, "cpu") == [None, None]
    assert given(2, "cuda:1") == ["0,1", "0,1"]  # submitit would hide them all
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert given(3) == ["5", "GPU-abc", "5"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert given(2) == [None, None]


def test_jobs_share_the_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert reproduce._environments(1, "auto") == [{}]  # as many threads as without this command
    assert reproduce._environments(3, "auto") == [{"OMP_NUM_THREADS": "2"}] * 3
    assert reproduce._environments(9, "cpu") == [{"OMP_NUM_THREADS": "1"}] * 9
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert reproduce._environments(3, "auto") == [{}] * 3


# A queue that is a folder: jobs wait until a file `go` is there, and squeue lists those that have not ended.
SBATCH = """
import os, pathlib, subprocess, sys
queue = pathlib.Path(os.environ["STAND_IN_QUEUE"])
if (queue / "refuse").exists():
    sys.exit("sbatch: error: invalid partition specified: none")
if (queue / "one").exists() and list(queue.glob("*.live")):
    sys.exit("sbatch: error: QOSMaxSubmitJobPerUserLimit")
job = str(1 + len(list(queue.glob("*.script"))))
(queue / f"{job}.script").write_text(pathlib.Path(sys.argv[-1]).read_text())
if not (queue / "lost").exists():  # a job that has ended before it began
    (queue / f"{job}.live").touch()
body = f"while [ ! -e {queue}/go ]; do sleep 0.05; done; bash {queue}/{job}.script; rm {queue}/{job}.live"
environment = {**os.environ, "SLURM_JOB_ID": job, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
subprocess.Popen(["bash", "-c", body], env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(f"Submitted batch job {job}")
"""
SRUN = """
import os, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[1:] if words[0] == "--unbuffered" else words[2:]  # --output FILE, --error FILE
os.execvp(words[0], words)
"""
SQUEUE = """
import os, pathlib, sys
queue = pathlib.Path(os.environ["STAND_IN_QUEUE"])
if (queue / "silent").exists():
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
live = [path.stem for path in queue.glob("*.live")]
print("\\n".join(live))
if os.environ.get("STAND_IN_GO"):
    (queue / "go").touch()
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A stand-in for SLURM, first on PATH; the folder of its queue."""
    programs, queue = tmp_path / "programs", tmp_path / "queue"
    programs.mkdir()
    queue.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE)):
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_QUEUE", str(queue))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    yield queue
    (queue / "go").touch()  # whatever still waits ends


def test_jobs_in_slurm_outlive_the_command_and_are_found_again(cluster, grid, monkeypatch, capsys):
    words = (*grid(QUICK), "--launcher", "slurm", "--slurm", "cpus_per_task=3", "--slurm", "slurm_partition=short")
    variables = {name: os.environ[name] for name in ("PATH", "STAND_IN_QUEUE")}
    process = started(*words, **variables)
    until(lambda: list(Path("cells").glob("*.job")), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the same command goes on from here; the jobs in SLURM go on (to end them: scancel 1)" in errors
    assert runs() == []
    (script,) = cluster.glob("*.script")
    assert "#SBATCH --cpus-per-task=3\n" in script.read_text()
    assert "#SBATCH --partition=short\n" in script.read_text()

    monkeypatch.setenv("STAND_IN_GO", "1")  # the job begins once this second command has asked for it
    assert here(*words) == 0
    assert list(cluster.glob("*.script")) == [script]
    assert "[1/1] quick | all | seed 1: tau " in capsys.readouterr().out
    (path,) = runs()
    assert len(starts(path)) == 1
    assert table()["quick"]["seeds"] == "1"
    until(lambda: not list(cluster.glob("*.live")))


def test_a_job_that_slurm_refuses(cluster, grid, capsys):
    (cluster / "refuse").touch()
    errors = fail(reproduce.main, capsys, *grid(QUICK), "--launcher", "slurm")
    assert "--launcher slurm: the job was refused: " in errors
    assert "invalid partition specified" in errors


def test_more_cells_than_slurm_takes_at_once(cluster, grid, monkeypatch):
    monkeypatch.setattr(execution, "_RETRY_SECONDS", 0.3)
    for name in ("one", "go"):
        (cluster / name).touch()
    second = {**QUICK, "name": "second", "flags": {**QUICK["flags"], "lr": 0.01}}
    assert here(*grid(QUICK, second), "--launcher", "slurm") == 0
    assert len(list(cluster.glob("*.script"))) == 2
    assert [line["seeds"] for line in table().values()] == ["1", "1"]


def test_a_slurm_that_is_silent_is_not_taken_for_an_empty_queue(cluster, grid, monkeypatch, capsys):
    cells, _ = reproduce.plan(reproduce.read_grid(grid(QUICK)[0]), reproduce.COMMANDS, Path("cells"), "cpu", None)
    Path("cells").mkdir()
    Path(f"{cells[0].task.directory}.job").write_text("1\n")
    (cluster / "silent").touch()
    monkeypatch.setattr(launchers, "_LATE_FILES_SECONDS", 0.1)
    monkeypatch.setattr(launchers, "_SLURM_SECONDS", 0.05)
    errors = fail(reproduce.main, capsys, *grid(QUICK), "--launcher", "slurm")
    assert "warning: squeue: slurm_load_jobs error: Unable to contact slurm controller" in errors
    assert "error: --launcher slurm: squeue does not answer; jobs of an earlier command may be there" in errors
    assert not list(cluster.glob("*.script"))


def test_a_job_that_slurm_has_ended_is_a_failure_with_its_log(cluster, grid, monkeypatch, capsys):
    monkeypatch.setattr(launchers, "_LATE_FILES_SECONDS", 0.1)
    monkeypatch.setattr(launchers, "_SLURM_SECONDS", 0.05)
    (cluster / "lost").touch()
    assert here(*grid(QUICK), "--launcher", "slurm") == 1
    out = capsys.readouterr().out
    assert f"quick | all | seed 1: failed, see {Path('cells').resolve() / 'submitit/1_0_log.err'}" in out
    assert table()["quick"]["seeds"] == "0"


def test_slurm_is_not_there(grid, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    errors = fail(reproduce.main, capsys, *grid(QUICK), "--launcher", "slurm")
    assert '--launcher slurm: Could not detect "srun"' in errors
