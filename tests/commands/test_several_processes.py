"""Runs that torchrun shares among two processes of this machine, talking through gloo."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from running import ENVIRONMENT, PACKAGE, call

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig
from nfn_transformer.training.data import prepare, split_runs
from nfn_transformer.training.loop import train
from nfn_transformer.training.run import Run
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.step import build_optimizer
from nfn_transformer.zoo.reading import read_zoo

pytestmark = pytest.mark.usefixtures("quick_python")

SETTINGS = ("--dataset", "digits", "--epochs", 3, "--seed", 1, "--device", "cpu")


def torchrun(*words, **settings) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1", **settings}
    return subprocess.Popen(
        [*launcher, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def losses(path: Path) -> list[float]:
    with open(path / "metrics.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train_loss", "validation_loss")]


def double_run(zoo_path: Path, run_path: Path, batch_size: int) -> Run:
    """A run in double precision; the processes of torchrun build the same one."""
    zoo = read_zoo(zoo_path, "digits", progress=False)
    zoo = replace(zoo, rows=zoo.rows.double(), labels=zoo.labels.double())
    run_path.mkdir(exist_ok=True)
    small_zoo = {"dropout": 0.3, "standardize": True, "ensemble": 2}
    model = build_predictor(
        zoo.spec, ModelConfig(options={"transformers_nfn_channels": (3, 2)}, **small_zoo), 1
    ).double()
    training = TrainingConfig(epochs=3, lr=1e-2, batch_size=batch_size)
    config = RunConfig(1, NETWORK, DataConfig("digits", str(zoo_path)), model.config, training)
    data = prepare(zoo, split_runs(zoo.runs, 1))
    run = Run(config, data, model, build_optimizer(training, model.parameters()))
    run.directory = RunDirectory(run_path)
    return run


PROGRAM = """
import sys
from pathlib import Path
import torch
from nfn_transformer.training.distributed import Distributed
from nfn_transformer.training.loop import train
sys.path[:0] = sys.argv[4:]
from test_several_processes import double_run

distributed = Distributed.from_environment()
with distributed.joined("cpu"):
    run = double_run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    run.writes = distributed.is_main
    train([run], distributed, stream=int(sys.argv[3]) % 2 == 0)
    torch.save(run.model.state_dict(), f"{sys.argv[2]}/rank{distributed.rank}.pt")
"""


# Of 42 networks: one batch of 41, and one of a single network, of which one process has none; or one of all.
@pytest.mark.parametrize("batch_size", [41, 42])
def test_two_processes_train_what_one_does(small_zoo, tmp_path, batch_size):
    alone = double_run(small_zoo, tmp_path / "alone", batch_size)
    train([alone], stream=False)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    here = Path(__file__).parent
    status, _, errors = ended(
        torchrun(program, small_zoo, tmp_path / "shared", batch_size, here, here.parent, PYTHONWARNINGS="error")
    )
    assert status == 0, errors
    assert losses(tmp_path / "shared") == pytest.approx(losses(tmp_path / "alone"), rel=1e-9)
    for rank in (0, 1):
        weights = torch.load(tmp_path / f"shared/rank{rank}.pt", weights_only=True)
        assert max(relative_error(weights[name], b) for name, b in alone.model.state_dict().items()) < 1e-9


@pytest.mark.usefixtures("plain_python")
def test_the_command_gives_the_same_result_and_can_be_resumed(small_zoo, tmp_path):
    words = (*SETTINGS, "--data_path", small_zoo)
    assert call("main.py", *words, "--out_dir", tmp_path / "alone").returncode == 0
    shared = tmp_path / "shared"
    process = torchrun(PACKAGE / "main.py", *words, "--out_dir", shared)
    for line in process.stdout:
        if "epoch 1/3" in line:
            process.send_signal(signal.SIGINT)
            break
    assert ended(process)[0] != 0
    assert not (shared / "results.json").exists()
    status, out, errors = ended(torchrun(PACKAGE / "main.py", "--resume", shared))
    assert status == 0, errors
    assert out.count("test tau") == 1
    assert losses(shared) == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    config = json.loads((shared / "config.json").read_text())
    assert config["versions"]["processes"] == "2"
    assert sorted(os.listdir(shared)) == sorted(os.listdir(tmp_path / "alone"))


def test_what_cannot_be_shared_is_refused(small_zoo, tmp_path):
    words = ("--dataset", "digits", "--data_path", small_zoo, "--device", "cpu", "--out_dir", tmp_path / "none")
    for program, more, what in (
        ("main.py", ("--seeds", "1,2"), "several runs at once"),
        ("xgb.py", (), "what xgb.py trains"),
    ):
        status, _, errors = ended(torchrun(PACKAGE / program, *words, *more))
        assert status != 0
        assert f"torchrun shares one network's training among processes, not {what}; start it by python" in errors
    assert not (tmp_path / "none").exists()
