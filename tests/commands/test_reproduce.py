"""reproduce.py as users run it: stopped in every way and resumed, with failing cells, changed grids, and in jobs."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from reproducing import LONG, QUICK, TREES, here, outcome, run_of, runs, started, starts, state_of, table, until
from running import call, fail, run

from nfn_transformer import main as network
from nfn_transformer import reproduce
from nfn_transformer.cli import reproduce_command
from nfn_transformer.launch.flags import environments

pytestmark = pytest.mark.usefixtures("quick_python", "in_a_folder_of_its_own", "signals_as_before")


@pytest.fixture(scope="module")
def direct(small_zoo, tmp_path_factory) -> tuple:
    """The outcome of the long cell where main.py is run by itself."""
    path = tmp_path_factory.mktemp("direct") / "run"
    words = [word for name, value in LONG["flags"].items() for word in (f"--{name}", value)]
    words += ["--dataset", "digits", "--data_path", small_zoo, "--cut_off", 0, "--seed", 1, "--wandb", "False"]
    done = call("main.py", *words, "--device", "cpu", "--out_dir", path)
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
    cells, _ = reproduce_command.plan(reproduce.read_grid(words[0]), reproduce.COMMANDS, Path("cells"), "auto", None)
    place = {cell.row: cell.directory for cell in cells}
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
    failures = [reproduce_command.Failure("a | x | seed 1", "a.log", "words")]
    unusable = ["a | x | seed 12: holds another run", "a | x | seed 1: holds another run"]
    assert reproduce_command._problems([], failures, unusable, 5) == [
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


@pytest.mark.usefixtures("plain_python")
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
        (("absent.yaml",), "absent.yaml: no such file; these come with the package, for examples: ag_news.yaml, "),
        (("GRID", "--slurm", "a=1"), "--slurm a=1: requires --launcher slurm or local"),
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
    Path("split.json").write_text("[]")
    errors = fail(reproduce.main, capsys, *grid({**QUICK, "flags": {"split": "split.json"}}))
    assert "column 'all': --split " in errors
    assert "split.json: expected an object with train, val and test, got a list\n" in errors
    assert runs() == []


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
        return [slot.get("CUDA_VISIBLE_DEVICES") for slot in environments(jobs, device)]

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
    assert environments(1, "auto") == [{}]  # as many threads as without this command
    assert environments(3, "auto") == [{"OMP_NUM_THREADS": "2"}] * 3
    assert environments(9, "cpu") == [{"OMP_NUM_THREADS": "1"}] * 9
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert environments(3, "auto") == [{}] * 3
