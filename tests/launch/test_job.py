"""A job's state is told by the files that it names, whatever the command is."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nfn_transformer.launch.job import Job
from nfn_transformer.launch.launchers import ProcessLauncher, last_line, why_unfinished


@pytest.fixture
def job(tmp_path) -> Job:
    """A job that is resumed once `begun` exists, and finished once `finished` does."""

    def touch(name: str) -> tuple[str, str]:
        return ("-c", f"import pathlib; pathlib.Path({str(tmp_path / name)!r}).touch(); print('made {name}')")

    return Job(
        path=str(tmp_path / "job"),
        finished_file=str(tmp_path / "finished"),
        begin=touch("begun"),
        begun_file=str(tmp_path / "begun"),
        resume=touch("finished"),
    )


def run(job: Job) -> str:
    """The last line of a job's log after a process of it."""
    running = ProcessLauncher([{}]).start(job, 0)
    assert running.wait() == 0
    return last_line(job.log)


def test_a_job_begins_is_resumed_and_is_then_left_alone(job):
    assert run(job) == "made begun"
    assert not job.is_finished()
    assert run(job) == "made finished"
    assert job.is_finished()
    before = job.log.read_bytes()
    run(job)
    assert job.log.read_bytes() == before


def test_a_job_with_results_is_unfinished_until_its_state_is_gone(job, tmp_path):
    """A kill between results and pictures: the job goes on, and draws them."""
    job, state = replace(job, state_file=str(tmp_path / "state")), tmp_path / "state"
    for name in ("begun", "finished", "state"):
        (tmp_path / name).touch()
    assert not job.is_finished()
    assert run(job) == "made finished"
    state.unlink()
    assert job.is_finished()


def test_a_job_without_state_of_its_own_begins_anew_each_time(tmp_path):
    job = Job(path=str(tmp_path / "job"), finished_file=str(tmp_path / "never"), begin=("-c", "print('begins')"))
    assert [run(job), run(job)] == ["begins", "begins"]
    assert job.log.read_text().count("\nbegins\n") == 2


def test_the_files_of_a_job_lie_beside_its_path(job, tmp_path):
    assert (job.log, job.lock, job.note) == tuple(tmp_path / f"job.{ending}" for ending in ("log", "lock", "job"))
    assert job.name == "job"
    assert job.argv()[:3] == [sys.executable, "-m", "nfn_transformer.launch.job"]


def test_why_a_job_has_ended_unfinished(job, tmp_path):
    running = ProcessLauncher([{}]).start(job, 0)
    running.wait()
    assert why_unfinished(running) == (job.log, "made begun")
    running.end_message = "its time was over"
    assert why_unfinished(running)[1] == "its time was over; made begun"
    job.log.unlink()
    assert why_unfinished(running) == (job.log, "its time was over; (there is no log)")
    running.launcher_log = tmp_path / "launcher.log"
    running.launcher_log.write_text("first\nlast\r\n\n")
    assert why_unfinished(running) == (Path(running.launcher_log), "its time was over; last")


def test_launch_knows_nothing_of_those_that_use_it():
    for path in (Path(__file__).parents[2] / "nfn_transformer/launch").glob("*.py"):
        text = path.read_text()
        assert "nfn_transformer.grids" not in text
        assert "nfn_transformer.generation" not in text
