"""Print what a report was measured on: card, driver, versions, free memory, and the speed of plain products.

python scripts/benchmarks/gpu_machine.py [--device cuda] [--out FILE]
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch
from measuring import machine, parser, seconds_of_one, write_measurements

from nfn_transformer.cli.command_line import find_device, run_command

LIBRARIES = ("torch", "numpy", "torch_geometric", "safetensors", "triton", "xgboost", "lightgbm", "scikit-learn")


def main(arguments: Sequence[str]) -> int:
    """Print a line for each property."""
    flags = parser(__doc__, rounds=0).parse_args(arguments)
    device = find_device(flags.device)
    found: dict[str, object] = dict(machine(device))
    found |= {name: _version(name) for name in LIBRARIES}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["memory, GiB"] = round(properties.total_memory / 2**30, 1)
        found["multiprocessors"], found["CUDA"] = properties.multi_processor_count, torch.version.cuda
    size = 4096 if device.type == "cuda" else 512
    matrix = torch.randn(size, size, device=device)
    seconds = seconds_of_one(lambda: matrix @ matrix, 10, device)
    found["float32 product, TFLOP/s"] = round(2 * size**3 / seconds / 1e12, 2)
    for name, value in found.items():
        print(f"{name:26} {value}")
    write_measurements(flags, device, [found])
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    run_command(main)
