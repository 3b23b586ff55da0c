"""reproduce.py with a stand-in for SLURM: jobs that outlive the command, wait, are refused, or are lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from reproducing import QUICK, here, runs, started, starts, table, until
from running import fail
from slurm_stand_in import stand_in

from nfn_transformer import reproduce
from nfn_transformer.cli import reproduce_command
from nfn_transformer.grids import execution
from nfn_transformer.launch import slurm_queue, submitit_launcher

pytestmark = pytest.mark.usefixtures("quick_python", "in_a_folder_of_its_own", "signals_as_before")


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[Path]:
    """A stand-in for SLURM; the folder of its queue."""
    queue = stand_in(tmp_path, monkeypatch)
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
    cells, _ = reproduce_command.plan(
        reproduce.read_grid(grid(QUICK)[0]), reproduce.COMMANDS, Path("cells"), "cpu", None
    )
    Path("cells").mkdir()
    Path(f"{cells[0].directory}.job").write_text("1\n")
    (cluster / "silent").touch()
    monkeypatch.setattr(slurm_queue, "_FIRST_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(slurm_queue, "_QUERY_SECONDS", 0.05)
    errors = fail(reproduce.main, capsys, *grid(QUICK), "--launcher", "slurm")
    assert "warning: squeue: slurm_load_jobs error: Unable to contact slurm controller" in errors
    assert "error: --launcher slurm: squeue does not answer; jobs of an earlier command may be there" in errors
    assert not list(cluster.glob("*.script"))


def test_a_job_that_slurm_has_ended_is_a_failure_with_its_log(cluster, grid, monkeypatch, capsys):
    monkeypatch.setattr(submitit_launcher, "_LATE_FILES_SECONDS", 0.1)
    monkeypatch.setattr(slurm_queue, "_QUERY_SECONDS", 0.05)
    (cluster / "lost").touch()
    assert here(*grid(QUICK), "--launcher", "slurm") == 1
    out = capsys.readouterr().out
    assert f"quick | all | seed 1: failed, see {Path('cells').resolve() / 'submitit/1_0_log.err'}" in out
    assert table()["quick"]["seeds"] == "0"


def test_slurm_is_not_there(grid, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    errors = fail(reproduce.main, capsys, *grid(QUICK), "--launcher", "slurm")
    assert '--launcher slurm: Could not detect "srun"' in errors
