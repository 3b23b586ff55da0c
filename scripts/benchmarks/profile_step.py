"""Print how long a training step keeps a GPU busy, and the operations that take longest, for one seed and for several.

python scripts/benchmarks/profile_step.py [--seeds 1 5] [--batch_sizes 16 128] [--device cuda] [--out FILE]
"""

import os
from collections.abc import Sequence

import torch
from measuring import PUBLISHED, RELEASED, begin, parser, random_zoo, run_of_steps, synchronize, write_measurements
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from nfn_transformer.cli.command_line import positive_int, run_command
from nfn_transformer.training.batches import StoredFeatures
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.step import Step

# The profiler says on stderr when it starts and stops, at level 6.
os.environ.setdefault("KINETO_LOG_LEVEL", "7")

STEPS = 5
SHOWN = 8


def main(arguments: Sequence[str]) -> int:
    """Profile every number of seeds at every batch size."""
    made = parser(__doc__, rounds=0)
    made.add_argument("--seeds", type=positive_int, nargs="+", default=[1, 5], help="how many are trained at once")
    made.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[16, 128], help="of each seed")
    flags = made.parse_args(arguments)
    device = begin(flags)
    measurements = [_profile(seeds, size, device) for seeds in flags.seeds for size in flags.batch_sizes]
    for entry in measurements:
        print(
            f"\n{entry['seeds']} seeds, batch {entry['batch_size']}: busy for {entry['milliseconds']:.2f} ms a step, "
            f"{entry['calls']:.0f} operations; among them"
        )
        for name, milliseconds, calls in entry["operations"]:
            print(f"    {milliseconds:.3f} ms in {calls:.0f} calls of {name[:90]}")
    write_measurements(flags, device, measurements)
    return 0


def _profile(seeds: int, batch_size: int, device: torch.device) -> dict:
    """Return the mean over some steps, after others that warm up."""
    zoo = random_zoo(RELEASED, batch_size)
    config = TrainingConfig(batch_size=batch_size)
    runs = [run_of_steps(zoo, PUBLISHED, config, seed, device) for seed in range(seeds)]
    stored = StoredFeatures(runs[0].model.featurize, zoo, torch.arange(batch_size), device)
    index, update = torch.arange(batch_size, device=device), Step(runs)
    if seeds > 1:
        index = index.expand(seeds, batch_size)

    def step() -> None:
        update(*stored.batch(index), batch_size)

    for _ in range(3):
        step()
    synchronize(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(STEPS):
            step()
        synchronize(device)
    # A GPU's kernels are listed by themselves and within the operations that launched them; only the former count.
    wanted = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == wanted]
    times = [event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total for event in events]
    rows = [(event.key, time / 1000 / STEPS, event.count / STEPS) for event, time in zip(events, times, strict=True)]
    rows = sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])
    return {
        "seeds": seeds,
        "batch_size": batch_size,
        "milliseconds": sum(row[1] for row in rows),
        "calls": sum(row[2] for row in rows),
        "operations": rows[:SHOWN],
    }


if __name__ == "__main__":
    run_command(main)
