"""How much memory is free, for deciding what to keep in it."""

import os

import torch


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device; on the CPU without swapping anything out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
