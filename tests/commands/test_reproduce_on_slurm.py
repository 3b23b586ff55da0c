"""reproduce.py with a stand-in for SLURM: jobs that outlive the command, wait, are refused, or are lost."""

import os
import signal
import sys
from pathlib import Path

import pytest
from reproducing import QUICK, here, runs, started, starts, table, until
from running import fail

from nfn_transformer import reproduce
from nfn_transformer.grids import execution, launchers

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "signals_as_before")

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
