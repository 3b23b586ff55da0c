"""make_zoo.py with submitit: jobs on this machine, and in a cluster whose stand-in runs them."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_stand_in import stand_in

from nfn_transformer import make_zoo
from nfn_transformer.cli.command_line import EXIT_INTERRUPTED
from nfn_transformer.generation import zoo_maker

FLAGS = [
    *("--embed_dim", "6", "--hidden", "5", "--patch", "4", "--epochs", "2", "--runs", "4", "--population", "2"),
    *("--train_images", "48", "--test_images", "60"),
]


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[Path]:
    """A stand-in for SLURM; the folder of its queue."""
    queue = stand_in(tmp_path, monkeypatch)
    yield queue
    (queue / "go").touch()


@pytest.fixture
def alone(tmp_path, monkeypatch) -> bytes:
    """The zoo as one process makes it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "alone").mkdir()
    assert make_zoo.main(["--out", str(tmp_path / "alone/zoo.zip"), *FLAGS]) == 0
    return (tmp_path / "alone/zoo.zip").read_bytes()


def test_jobs_of_submitit_on_this_machine(tmp_path, alone):
    out = tmp_path / "zoo.zip"
    assert make_zoo.main(["--out", str(out), *FLAGS, "--launcher", "local", "--jobs", "2"]) == 0
    assert out.read_bytes() == alone
    assert not out.with_name("zoo.zip.parts").exists()


def test_a_cluster_gets_a_job_for_each_population(tmp_path, alone, cluster, monkeypatch):
    (cluster / "go").touch()
    out = tmp_path / "zoo.zip"
    assert make_zoo.main(["--out", str(out), *FLAGS, "--launcher", "slurm", "--slurm", "cpus_per_task=1"]) == 0
    assert out.read_bytes() == alone
    scripts = list(cluster.glob("*.script"))
    assert len(scripts) == 2
    assert all("#SBATCH --cpus-per-task=1\n" in script.read_text() for script in scripts)


def test_jobs_in_a_cluster_outlive_the_command_and_are_found_again(tmp_path, alone, cluster):
    out = tmp_path / "zoo.zip"
    words = ["--out", str(out), *FLAGS, "--launcher", "slurm", "--jobs", "1"]

    def heed_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, make_zoo.__file__, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as process:
        parts = out.with_name("zoo.zip.parts")
        while not list(parts.glob("*.job")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert "the jobs in SLURM go on (to end them: scancel 1)" in errors
    assert not out.exists()
    (cluster / "go").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo_maker, "train_population", None)  # the job trains, not this process
        assert make_zoo.main(words) == 0
    assert out.read_bytes() == alone
    assert len(list(cluster.glob("*.script"))) == 1
