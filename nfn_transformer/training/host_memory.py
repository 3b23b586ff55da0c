"""Memory that a training step frees is kept for the next one."""

import ctypes
import sys

# Parameters of mallopt in <malloc.h>, and the most that the threshold may be.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 << 20


def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory instead of handing it back to the system.

    PyTorch has no cache of its own for the CPU, and glibc maps large tensors anew in every step: at large
    batches touching fresh pages takes a good part of a training step. Where the C library is another, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
