"""The most memory that a function's tensors take at once, above what was there before.

On CUDA PyTorch's allocator knows it; on the CPU PyTorch's profiler reports every allocation and release, and the
highest of their running totals is the peak.
"""

import json
import os
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from large_zoo import MIB
from measuring import synchronize
from torch.profiler import ProfilerActivity, profile

# The profiler says on stderr when it starts and stops, at level 6.
os.environ.setdefault("KINETO_LOG_LEVEL", "7")


def peak_memory(function: Callable[[], object], device: torch.device) -> int:
    """Bytes of the peak during one call, above what was allocated when it began."""
    return _peak_on_cuda(function, device) if device.type == "cuda" else _peak_on_cpu(function)


def _peak_on_cuda(function: Callable[[], object], device: torch.device) -> int:
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(function: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    # In the order of time; of one moment in the order of the file.
    changes = [event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])]
    return max(accumulate(changes, initial=0))


def check_peak_memory(device: torch.device) -> None:
    """Measure a function whose peak is known: 10 MiB, which are gone before another 8 MiB are wanted.

    Raises:
        RuntimeError: the figure is off by more than 1 %.
    """

    def function() -> None:
        torch.ones(10 * MIB, dtype=torch.uint8, device=device)
        torch.ones(8 * MIB, dtype=torch.uint8, device=device)

    function()
    found = peak_memory(function, device)
    if abs(found - 10 * MIB) > 0.01 * 10 * MIB:
        raise RuntimeError(f"a peak of 10 MiB was measured as {found / MIB:.2f} MiB; memory cannot be measured here")
