"""The part of the machine that this process may use: its share of the CPUs, and free memory."""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

SHORT_WAITING = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "0"}
"""Variables by which threads of OpenMP (GNU's and LLVM's) soon sleep while they wait for each other.

By default they spin for milliseconds. Beside another program, a thread then waits by using up the time of the thread
that it waits for. A library reads the variables when it is loaded.
"""

# M_MMAP_THRESHOLD of mallopt(3).
_MMAP_THRESHOLD, _LARGE_PIECE = -3, 1 << 20

_STATUS = Path("/proc/self/status")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    Bounds are the affinity, the quotas of control groups (versions 1 and 2), and SLURM's CPUs of a task. Processes that
    torchrun started on one machine share them equally.
    """
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        lines = _GROUP.read_text().splitlines()
    except OSError:  # other systems than Linux
        lines = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        root = _GROUPS if not controllers else _GROUPS / controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            try:
                if (folder / "cpu.max").is_file():
                    quota, period = map(float, (folder / "cpu.max").read_text().split())
                else:
                    quota, period = (float((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
                if quota > 0 < period:
                    cpus = min(cpus, quota / period)
            except (OSError, ValueError):  # no such group, or no bound ("max")
                pass
            if folder == _GROUPS:
                break
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if task.isdecimal() and int(task):
        cpus = min(cpus, int(task))
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    if processes.isdecimal() and int(processes):
        cpus /= int(processes)
    return max(1, int(cpus))


def limit_threads() -> int:
    """Let PyTorch use no more threads than there are CPUs for this process; return their number.

    `OMP_NUM_THREADS` is the user's.
    """
    import torch  # which takes a second: flags are parsed and checked before

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))
    return torch.get_num_threads()


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], most: int) -> list[Result]:
    """Return a function's results, without gradients, for each item: an item is computed by one thread alone.

    PyTorch's threads, which share each operation, wait for each other after every one. They gain little where
    operations are short.

    Args:
        function: of an item.
        items: what it is called with.
        most: items at once, as far as there are threads: each takes memory of its own. A GPU gains by none but one.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    function, threads = torch.no_grad()(function), torch.get_num_threads()
    at_once = min(threads, len(items), most)
    if at_once < 2:
        return [function(item) for item in items]
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)  # MKL has one number for all threads


def return_freed_memory() -> None:
    """Let the C library give large pieces of freed memory back at once, where that is glibc.

    By default glibc keeps them for later, as soon as a few were freed. Small pieces in between then keep the memory of
    many activations in use: predicting a BERT-base took 300 MiB more.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_PIECE)
    except (OSError, TypeError, AttributeError):  # other systems
        return


def peak_mib(device: "torch.device") -> float:
    """Return the most MiB that this process has held on a device so far; nan where the system does not tell.

    On a GPU these are PyTorch's tensors, since `torch.cuda.reset_peak_memory_stats`. On the CPU it is the whole
    process, libraries included, since the program began.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        with open(_STATUS) as file:  # Linux's getrusage also counts what the starting process held
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    units_per_mib = 2**20 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units_per_mib


def free_bytes(device: "torch.device") -> int:
    """Return the bytes that can still be taken on a device.

    On the CPU these are the bytes that need no swapping, within the limits of control groups (version 2).
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            free = float(next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:")))
    except (OSError, StopIteration):
        # Other systems than Linux do not tell what is free.
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return int(free)
    root = Path("/sys/fs/cgroup")
    group = next((root / line[3:].lstrip("/") for line in lines if line.startswith("0::")), root)
    for folder in (group, *group.parents):
        try:
            free = min(free, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue
    return int(max(0.0, free))
