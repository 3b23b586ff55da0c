"""Free memory, which decides what is kept in it."""

import os
from pathlib import Path

import torch


def free_bytes(device: torch.device) -> int:
    """Return the bytes that can still be taken on a device.

    On the CPU these are the bytes that need no swapping, within the limits of control groups (version 2).
    """
    if device.type == "cuda":
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
