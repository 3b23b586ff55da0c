"""The share of the CPUs: affinity, quotas of control groups, SLURM, torchrun; the user's own choices stay."""

import math
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from nfn_transformer import resources


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups of a machine with 16 CPUs, whose files a test writes."""
    (tmp_path / "self").write_text("4:cpu,cpuacct:/job\n0::/box/job\n")
    monkeypatch.setattr(resources, "_GROUP", tmp_path / "self")
    monkeypatch.setattr(resources, "_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


@pytest.mark.parametrize(
    ("files", "environment", "expected"),
    [
        ({}, {}, 16),
        ({"box/job/cpu.max": "max 100000"}, {}, 16),
        ({"box/job/cpu.max": "max 100000", "box/cpu.max": "350000 100000"}, {}, 3),
        ({"box/job/cpu.max": "50000 100000"}, {}, 1),
        ({"cpu,cpuacct/job/cpu.cfs_quota_us": "400000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, {}, 4),
        ({"cpu,cpuacct/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, {}, 16),
        ({}, {"SLURM_CPUS_PER_TASK": "6"}, 6),
        ({}, {"LOCAL_WORLD_SIZE": "5"}, 3),
        ({"box/cpu.max": "800000 100000"}, {"SLURM_CPUS_PER_TASK": "10", "LOCAL_WORLD_SIZE": "4"}, 2),
        ({"box/cpu.max": "nonsense"}, {"SLURM_CPUS_PER_TASK": "many", "LOCAL_WORLD_SIZE": ""}, 16),
    ],
)
def test_the_smallest_bound_counts(groups, monkeypatch, files, environment, expected):
    for name, text in files.items():
        groups(name, text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resources.usable_cpus() == expected


def test_items_are_computed_by_one_thread_each():
    before, together = torch.get_num_threads(), threading.Barrier(2, timeout=20)

    def answer(item):
        together.wait()  # breaks unless two items are computed at once
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    try:
        torch.set_num_threads(2)
        assert resources.map_in_threads(answer, range(4), most=9) == [(item, 1, False) for item in range(4)]
        assert torch.get_num_threads() == 2
        here = threading.get_ident()
        assert resources.map_in_threads(lambda _: threading.get_ident(), range(4), most=1) == [here] * 4
    finally:
        torch.set_num_threads(before)


def test_threads_are_limited_unless_the_user_has_chosen(groups, monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        assert resources.limit_threads() == 4
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert resources.limit_threads() == torch.get_num_threads() == 3
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
        assert resources.limit_threads() == 3  # never more than PyTorch takes by itself
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("chosen", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_sleep_while_they_wait_unless_the_user_has_chosen(chosen):
    program = """
import os, sys
from nfn_transformer.cli.command_line import run_command
def command(arguments):
    assert "torch" not in sys.modules
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    print({name: os.environ[name] for name in names if name in os.environ})
    return 0
run_command(command)
"""
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | chosen
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == str(chosen or resources.SHORT_WAITING)


def test_the_peak_is_the_program_s_own_in_mib_on_every_system(tmp_path, monkeypatch):
    cpu, status = torch.device("cpu"), tmp_path / "status"
    assert resources.peak_mib(cpu) > 50
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 20)
    assert resources.peak_mib(torch.device("cuda")) == 3
    monkeypatch.setattr(resources, "_STATUS", status)
    status.write_text("Name:\tpython\nVmHWM:\t  262144 kB\nVmRSS:\t  131072 kB\n")
    assert resources.peak_mib(cpu) == 256
    status.unlink()
    monkeypatch.setattr("resource.getrusage", lambda who: SimpleNamespace(ru_maxrss=1 << 20))
    for system, expected in (("linux", 1024), ("darwin", 1)):  # KiB, bytes
        monkeypatch.setattr(sys, "platform", system)
        assert resources.peak_mib(cpu) == expected
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(resources.peak_mib(cpu))
