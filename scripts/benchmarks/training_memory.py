"""How much memory a training step takes, our way and the published way.

Prints the peak during one step above what stays between steps (parameters, optimizer state, stored data), and the same
less the size of the gradients, which both ways must have; what is left is for the batch, features, activations and
scratch space. Gradients are freed and made anew in every step; a first step, which makes the optimizer's state, does
not count. The figures are exact and need no repetition. They are of the published settings, on random weights with
the sizes of the released MNIST zoo.

    python scripts/benchmarks/training_memory.py [--batch_sizes 16 128 1024] [--out FILE]
"""

from collections.abc import Sequence

import torch
from large_zoo import MIB
from measuring import Case, begin, markdown, parser, progress, write_measurements
from peak_memory import check_peak_memory, peak_memory
from taking_turns import OURS, PUBLISHED
from two_ways import OurWay, PublishedWay, Way

from nfn_transformer.cli.command_line import positive_int, run_command


def main(arguments: Sequence[str]) -> int:
    made = parser(__doc__, rounds=0)
    made.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[16, 128, 1024], help="of a step")
    flags = made.parse_args(arguments)
    device = begin(flags)
    check_peak_memory(device)
    measurements = [_measure(batch_size, device) for batch_size in flags.batch_sizes]
    print(_table(measurements))
    gradients = measurements[0]["gradients"] / MIB
    print(f"\nParameters and gradients take {gradients:.1f} MiB each, Adam's state {2 * gradients:.1f} MiB.")
    write_measurements(flags, device, measurements)
    return 0


def _measure(batch_size: int, device: torch.device) -> dict:
    """Bytes of a step of each way, and of its gradients, which are the same."""
    progress(f"training step, batch {batch_size} ...")
    found, case = {}, Case(batch_size=batch_size)
    for name, way in ((PUBLISHED, PublishedWay(device, workers=0)), (OURS, OurWay(device))):
        way.prepare(case)
        found[name] = _step_bytes(way)
        gradients = _gradient_bytes(way)
    return {"batch_size": batch_size, "bytes": found, "gradients": gradients}


def _step_bytes(way: Way) -> int:
    """The peak of a step that begins without gradients."""
    way.training_step_from_stored()
    for parameter in way.model.parameters():
        parameter.grad = None
    return peak_memory(way.training_step_from_stored, way.device)


def _gradient_bytes(way: Way) -> int:
    gradients = [parameter.grad for parameter in way.model.parameters() if parameter.grad is not None]
    return sum(gradient.numel() * gradient.element_size() for gradient in gradients)


def _table(measurements: Sequence[dict]) -> str:
    rows = []
    for title, with_gradients in (("without gradients", False), ("with gradients", True)):
        for measurement in measurements:
            without = 0 if with_gradients else measurement["gradients"]
            published, ours = ((measurement["bytes"][name] - without) / MIB for name in (PUBLISHED, OURS))
            row = (f"{published:.1f}", f"{ours:.1f}", f"{published / ours:.2f}")
            rows.append((title, measurement["batch_size"], *row))
    header = ("", "batch", "published, MiB", "ours, MiB", "published / ours")
    title = "Peak memory of a training step above parameters, optimizer state and stored data."
    return markdown(title, header, rows)


if __name__ == "__main__":
    run_command(main)
