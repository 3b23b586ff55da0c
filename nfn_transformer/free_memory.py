"""Free memory, which decides what is kept in it."""

import math
import os
from pathlib import Path

import torch


def free_bytes(device: torch.device) -> int:
    """Return the free bytes of a device; on the CPU without swapping, and within the limits of the job."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        # Other systems than Linux do not tell what is free.
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return int(min(free, _free_in_group()))


def _free_in_group() -> float:
    """Return the bytes that control groups (version 2) leave to a container or job; infinity without a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    root = Path("/sys/fs/cgroup")
    group = next((root / line[3:].lstrip("/") for line in lines if line.startswith("0::")), root)
    free = math.inf
    for folder in (group, *group.parents):
        try:
            free = min(free, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue
    return max(0.0, free)
