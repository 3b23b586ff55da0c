"""Starting the agents of a sweep, with a stand-in for wandb that notes how it was started."""

import json
import shutil
import signal
import subprocess
import time

import pytest

AGENT = """
import json, os, sys
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
note = {"arguments": sys.argv[1:], **{name: os.environ.get(name) for name in names}}
print(json.dumps(note))
if os.environ["CUDA_VISIBLE_DEVICES"] == os.environ.get("FAILING_GPU"):
    sys.exit(7)
"""

# As wandb's agent does: the first Ctrl-C lets the run go on, the second one ends it.
AGENT_THAT_STAYS = """
import os, signal, sys, time
interrupts = []
def interrupted(*_):
    interrupts.append(1)
    if len(interrupts) == 2:
        sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
signal.signal(signal.SIGINT, interrupted)
print(os.getpid(), flush=True)
while True:
    time.sleep(0.05)
"""


# What nvidia-smi does where it is installed and no driver runs.
NO_DRIVER = "print('NVIDIA-SMI has failed because ...'); raise SystemExit(9)"


@pytest.fixture
def sweeper(scripts):
    scripts.add_program("wandb", AGENT)
    scripts.add_program("nproc", "print(8)")
    scripts.add_program("nvidia-smi", "for gpu in range(4): print(f'GPU {gpu}: a GPU (UUID: GPU-{gpu})')")
    return scripts


def notes(scripts, sweep: str = "abc123") -> dict[str, dict]:
    """Return the notes of each agent, by the name of its log."""
    logs = sorted((scripts.root / "runs/sweeps" / sweep).glob("*.log"))
    return {log.stem: json.loads(log.read_text()) for log in logs}


def start(scripts, *arguments, **variables) -> dict[str, dict]:
    result = scripts.run("run_sweep.sh", "abc123", *arguments, **variables)
    assert (result.returncode, result.stderr) == (0, "")
    return notes(scripts)


def only_these_programs(scripts) -> str:
    """A PATH with the stand-ins and what the script needs before it starts an agent, and nothing else."""
    for name in ("bash", "dirname", "grep", "sort", "uniq"):
        (scripts.programs / name).symlink_to(shutil.which(name))
    return str(scripts.programs)


def test_a_count_of_gpus(sweeper):
    found = start(sweeper, 1, 3)
    assert {name: note["CUDA_VISIBLE_DEVICES"] for name, note in found.items()} == {
        "gpu0-agent1": "0",
        "gpu1-agent1": "1",
        "gpu2-agent1": "2",
    }
    assert all(note["arguments"] == ["agent", "abc123"] for note in found.values())


def test_a_count_takes_the_first_of_the_devices_that_are_visible_already(sweeper):
    found = start(sweeper, 1, 2, CUDA_VISIBLE_DEVICES="3,1,2")
    assert {name: note["CUDA_VISIBLE_DEVICES"] for name, note in found.items()} == {
        "gpu1-agent1": "1",
        "gpu3-agent1": "3",
    }


def test_a_list_names_some_of_the_devices_that_are_visible_already(sweeper):
    (found,) = start(sweeper, 1, "1,", CUDA_VISIBLE_DEVICES="3, 1").values()
    assert found["CUDA_VISIBLE_DEVICES"] == "1"


def test_visible_devices_by_their_uuids(sweeper):
    found = start(sweeper, 1, 2, CUDA_VISIBLE_DEVICES="GPU-89ab,MIG-GPU-89ab/1/0")
    assert {name: note["CUDA_VISIBLE_DEVICES"] for name, note in found.items()} == {
        "GPU-89ab-agent1": "GPU-89ab",
        "MIG-GPU-89ab-1-0-agent1": "MIG-GPU-89ab/1/0",
    }


def test_visible_devices_need_no_nvidia_smi(sweeper):
    sweeper.add_program("nvidia-smi", NO_DRIVER)
    found = start(sweeper, 1, 1, CUDA_VISIBLE_DEVICES="6,7")
    assert {name: note["CUDA_VISIBLE_DEVICES"] for name, note in found.items()} == {"gpu6-agent1": "6"}


@pytest.mark.parametrize(
    ("gpus", "visible", "message"),
    [
        ("3", "2,3", "there are fewer than 3; CUDA_VISIBLE_DEVICES='2,3' lists 2"),
        ("1", "", "there are fewer than 1; CUDA_VISIBLE_DEVICES='' lists 0"),
        ("1", "NoDevFiles", "there are fewer than 1; CUDA_VISIBLE_DEVICES='NoDevFiles' lists 0"),  # SLURM: no GPU
        ("2", "0,-1,1", "there are fewer than 2; CUDA_VISIBLE_DEVICES='0,-1,1' lists 1"),
        ("0,2", "2,3", "there is no GPU 0; CUDA_VISIBLE_DEVICES='2,3' lists 2"),
        ("2", "0,9", "there is no GPU 9; nvidia-smi lists 4, counted from 0"),
    ],
)
def test_gpus_that_are_not_visible(sweeper, gpus, visible, message):
    result = sweeper.run("run_sweep.sh", "abc123", 1, gpus, CUDA_VISIBLE_DEVICES=visible)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: GPUS: {message}\nusage: ")
    assert not (sweeper.root / "runs").exists()


@pytest.mark.parametrize("gpus", ["1", "0,"])
def test_gpus_where_nvidia_smi_lists_none(sweeper, gpus):
    sweeper.add_program("nvidia-smi", NO_DRIVER)
    result = sweeper.run("run_sweep.sh", "abc123", 1, gpus)
    assert result.returncode == 2
    assert "; nvidia-smi lists 0, counted from 0\nusage: " in result.stderr
    assert not (sweeper.root / "runs").exists()


@pytest.mark.parametrize("gpus", ["1", "0,"])
def test_gpus_without_nvidia_smi(sweeper, gpus):
    (sweeper.programs / "nvidia-smi").unlink()
    path = only_these_programs(sweeper)
    result = sweeper.run("run_sweep.sh", "abc123", 1, gpus, PATH=path)
    assert result.returncode == 2
    assert "; nvidia-smi is not installed, and CUDA_VISIBLE_DEVICES is not set\nusage: " in result.stderr
    assert not (sweeper.root / "runs").exists()


@pytest.mark.parametrize(("gpus", "expected"), [("0,2", ["0", "2"]), ("3,", ["3"]), ("1,0,", ["0", "1"])])
def test_a_list_of_gpus(sweeper, gpus, expected):
    assert sorted(note["CUDA_VISIBLE_DEVICES"] for note in start(sweeper, 1, gpus).values()) == expected


def test_several_agents_on_a_gpu_share_the_cores(sweeper):
    found = start(sweeper, 2, 2)
    assert list(found) == ["gpu0-agent1", "gpu0-agent2", "gpu1-agent1", "gpu1-agent2"]
    assert all(note["OMP_NUM_THREADS"] == "2" for note in found.values())


def test_agents_on_gpus_of_their_own_share_the_cores(sweeper):
    assert [note["OMP_NUM_THREADS"] for note in start(sweeper, 1, 4).values()] == ["2"] * 4


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_single_agent_has_all_cores(sweeper, gpus):
    assert [note["OMP_NUM_THREADS"] for note in start(sweeper, 1, gpus).values()] == [None]


def test_no_gpu(sweeper):
    sweeper.add_program("nvidia-smi", NO_DRIVER)
    found = start(sweeper, 3, 0)
    assert list(found) == ["cpu-agent1", "cpu-agent2", "cpu-agent3"]
    assert all((note["CUDA_VISIBLE_DEVICES"], note["OMP_NUM_THREADS"]) == ("", "2") for note in found.values())


def test_more_agents_than_cores(sweeper):
    sweeper.add_program("nproc", "print(2)")
    assert all(note["OMP_NUM_THREADS"] == "1" for note in start(sweeper, 3, 0).values())


def test_the_users_number_of_threads_is_kept(sweeper):
    found, _ = start(sweeper, 2, "3,", OMP_NUM_THREADS="5").values()
    assert found["OMP_NUM_THREADS"] == "5"


def test_a_full_sweep_id(sweeper):
    assert sweeper.run("run_sweep.sh", "some-team/transformer-nfn/abc123", 1, 1).returncode == 0
    assert notes(sweeper)["gpu0-agent1"]["arguments"] == ["agent", "some-team/transformer-nfn/abc123"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected 3 arguments, got 0"),
        (["abc123", "1"], "expected 3 arguments, got 2"),
        (["abc123", "1", "1", "1"], "expected 3 arguments, got 4"),
        (["", "1", "1"], "SWEEP_ID: expected ID or ENTITY/PROJECT/ID, got ''"),
        (["--help", "1", "1"], "SWEEP_ID: expected ID or ENTITY/PROJECT/ID, got '--help'"),
        (["team/..", "1", "1"], "SWEEP_ID: expected ID or ENTITY/PROJECT/ID, got 'team/..'"),
        (["abc123", "0", "1"], "AGENTS_PER_GPU: expected a whole number from 1 to 999, got '0'"),
        (["abc123", "two", "1"], "AGENTS_PER_GPU: expected a whole number from 1 to 999, got 'two'"),
        (["abc123", "1", "-1"], "GPUS: expected a count such as 2, or a list such as '0,2' or '3,', got '-1'"),
        (["abc123", "1", "0,,1"], "GPUS: expected a count such as 2, or a list such as '0,2' or '3,', got '0,,1'"),
        (["abc123", "1", ","], "GPUS: expected a count such as 2, or a list such as '0,2' or '3,', got ','"),
        (["abc123", "1", "2,2"], "GPUS: '2,2' names a GPU twice"),
        (["abc123", "1", "0,4"], "GPUS: there is no GPU 4; nvidia-smi lists 4, counted from 0"),
        (["abc123", "1", "5"], "GPUS: there are fewer than 5; nvidia-smi lists 4, counted from 0"),
    ],
)
def test_bad_arguments(sweeper, arguments, message):
    result = sweeper.run("run_sweep.sh", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {message}\nusage: bash scripts/run_sweep.sh SWEEP_ID AGENTS_PER_GPU GPUS")
    assert not (sweeper.root / "runs").exists()


def test_a_failing_agent_is_named_and_the_others_end(sweeper):
    result = sweeper.run("run_sweep.sh", "abc123", 1, "0,1,2", FAILING_GPU="1")
    assert result.returncode == 1
    assert result.stderr == "error: an agent failed with status 7: runs/sweeps/abc123/gpu1-agent1.log\n"
    assert list(notes(sweeper)) == ["gpu0-agent1", "gpu1-agent1", "gpu2-agent1"]


def test_logs_of_an_earlier_start_are_kept(sweeper):
    for _ in range(2):
        assert sweeper.run("run_sweep.sh", "abc123", 1, 1).returncode == 0
    log = sweeper.root / "runs/sweeps/abc123/gpu0-agent1.log"
    assert len(log.read_text().splitlines()) == 2


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("sent", "interrupts", "status"),
    [
        (signal.SIGINT, "--default-signal=INT", 130),
        (signal.SIGTERM, "--default-signal=INT", 143),
        (signal.SIGTERM, "--ignore-signal=INT", 143),  # as where a script starts it in its background
    ],
)
def test_a_signal_stops_every_agent(sweeper, sent, interrupts, status):
    sweeper.add_program("wandb", AGENT_THAT_STAYS)
    logs = [sweeper.root / f"runs/sweeps/abc123/gpu{gpu}-agent1.log" for gpu in (0, 1)]
    process = subprocess.Popen(
        ["env", interrupts, *sweeper.command("run_sweep.sh", "abc123", 1, 2)],
        env=sweeper.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 30
    while not all(log.is_file() and log.read_text().endswith("\n") for log in logs):
        assert time.monotonic() < end, "the agents did not start"
        time.sleep(0.05)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (status, b"stopping the agents and their runs\n")
    assert not any(running(int(log.read_text())) for log in logs)


def test_without_wandb(sweeper):
    (sweeper.programs / "wandb").unlink()
    result = sweeper.run("run_sweep.sh", "abc123", 1, 1, PATH=only_these_programs(sweeper))
    assert result.returncode == 2
    assert result.stderr == "error: wandb is not installed; expected it from: pip install -r requirement.txt\n"
