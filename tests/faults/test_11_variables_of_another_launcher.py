"""Kind 11: RANK and WORLD_SIZE that something else than torchrun has set end in one line, never in a silent wait."""

import sys
import time

import pytest
import torch

from nfn_transformer import main, xgb
from nfn_transformer.errors import UserError
from nfn_transformer.launch.job import Job
from nfn_transformer.launch.launchers import ProcessLauncher
from nfn_transformer.training import distributed
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed

COMPLETE = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Sets the variables, without those that the tests were started with."""

    def set_to(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    for name in COMPLETE:
        monkeypatch.delenv(name, raising=False)
    return set_to


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE=2, RANK=0, LOCAL_RANK=0: expected MASTER_ADDR and MASTER_PORT"),
        ({**COMPLETE, "MASTER_PORT": ""}, "LOCAL_RANK=0: expected MASTER_PORT besides, as torchrun sets it"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but no RANK: expected RANK as torchrun sets it"),
        ({**COMPLETE, "RANK": "2"}, "WORLD_SIZE=2, RANK=2, LOCAL_RANK=0: expected RANK below WORLD_SIZE"),
        ({**COMPLETE, "RANK": "-1"}, "RANK=-1: expected RANK as torchrun sets it"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: expected WORLD_SIZE as torchrun sets it"),
    ],
)
def test_variables_that_torchrun_does_not_set_so_are_one_line(environment, variables, message, small_zoo):
    environment(**variables)
    with pytest.raises(UserError, match=message) as error:
        main.main(["--dataset", "digits", "--data_path", str(small_zoo), "--device", "cpu"])
    assert str(error.value).endswith("or one alone after: unset RANK WORLD_SIZE LOCAL_RANK")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variables", [{"RANK": "7"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "job 3"}, {}])
def test_without_several_processes_a_rank_means_nothing(environment, variables):
    environment(**variables)
    assert Distributed.from_environment() == SINGLE_PROCESS


def test_torchruns_variables_are_taken(environment):
    environment(**{**COMPLETE, "RANK": "1", "LOCAL_RANK": "1"})
    assert Distributed.from_environment() == Distributed(1, 2, 1, is_main=False)


def test_a_wait_for_processes_is_told(environment, monkeypatch, capsys):
    environment(**COMPLETE)
    monkeypatch.setattr(distributed, "_SECONDS_BEFORE_NOTICE", 0.01)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: time.sleep(0.3))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with Distributed.from_environment().joined("cpu"):
        pass
    lines = capsys.readouterr().err.splitlines()
    expected = "process 0 is waiting at 127.0.0.1:29531 for 2 processes (RANK, WORLD_SIZE are set); "
    assert [line.startswith(expected) for line in lines] == [True]


def test_what_is_not_shared_names_the_variable(environment, small_zoo):
    environment(**COMPLETE)
    with pytest.raises(UserError, match=r"not what xgb.py trains; start it by python \(WORLD_SIZE is 2\)"):
        xgb.main(["--dataset", "digits", "--data_path", str(small_zoo), "--device", "cpu"])


def test_jobs_of_a_grid_are_one_process_each(environment, tmp_path):
    environment(**COMPLETE)
    program = "import os; print([name for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK') if name in os.environ])"
    job = Job(str(tmp_path / "job"), str(tmp_path / "done"), ("-c", program))
    assert ProcessLauncher([{}]).start(job, 0).wait() == 0
    assert job.log.read_text(encoding=sys.getdefaultencoding()).splitlines()[-1] == "[]"
