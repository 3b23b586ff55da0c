"""How much faster several seeds of one configuration are trained at once than one after another.

Both are our way, in one process, in turns: a round trains m seeds at once for some epochs, then each of the same seeds
alone. An epoch of m seeds is one of each: at once, what the training loop itself finds; one after another, the sum over
the seeds. The median over the epochs of a training counts, without the first. One seed at once is the same as alone,
so its ratio shows how exact the others are.

    python scripts/benchmarks/seeds_at_once.py [--seeds 1 2 5] [--batch_sizes 16 128] [--rounds 3] [--out FILE]
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import (
    PUBLISHED,
    RELEASED,
    begin,
    markdown,
    new_run,
    parser,
    progress,
    random_zoo,
    ratios,
    spread,
    write_measurements,
)

from nfn_transformer import Zoo
from nfn_transformer.cli.command_line import add_boolean, number_in, positive_int, run_command
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.loop import train

NETWORKS = 1463
"""A zoo whose training side has 1024 networks: whole batches of 16 and 128."""

AT_ONCE, IN_A_ROW = "at once", "one after another"


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    device = begin(flags)
    zoo = random_zoo(RELEASED, flags.networks)
    measurements = [
        _measure(zoo, count, batch_size, flags, device) for batch_size in flags.batch_sizes for count in flags.seeds
    ]
    print(_table(measurements))
    write_measurements(flags, device, measurements)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__, rounds=3)
    made.add_argument("--seeds", type=positive_int, nargs="+", default=[1, 2, 5], help="how many are trained at once")
    made.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[16, 128], help="of each seed")
    made.add_argument("--networks", type=number_in(int, 7), default=NETWORKS, help="in the zoo; 70 %% train")
    made.add_argument("--epochs", type=number_in(int, 2), default=3, help="of each training; the first does not count")
    add_boolean(made, "--cuda_graphs", False, "train with CUDA graphs")
    return made


def _measure(zoo: Zoo, count: int, batch_size: int, flags: argparse.Namespace, device: torch.device) -> dict:
    """Seconds of an epoch of so many seeds, at once and one after another, a figure a round."""
    config = TrainingConfig(flags.epochs, batch_size=batch_size, cuda_graphs=flags.cuda_graphs)
    seeds = range(1, count + 1)
    found: dict[str, list[float]] = {IN_A_ROW: [], AT_ONCE: []}
    for number in range(1, flags.rounds + 1):
        progress(f"seeds {count}, batch {batch_size}, round {number} of {flags.rounds} ...")
        found[IN_A_ROW].append(sum(_epoch_seconds(zoo, [seed], config, device) for seed in seeds))
        found[AT_ONCE].append(_epoch_seconds(zoo, seeds, config, device))
    return {"what": "epoch", "seeds": count, "batch_size": batch_size, "seconds": found}


def _epoch_seconds(zoo: Zoo, seeds: Sequence[int], config: TrainingConfig, device: torch.device) -> float:
    """Median seconds of an epoch of all the seeds, trained at once."""
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        runs = [new_run(zoo, PUBLISHED, config, seed, device, Path(folder)) for seed in seeds]
        train(runs, stream=False)
    return statistics.median(record.seconds for record in runs[0].history.records[1:])


def _table(measurements: Sequence[dict]) -> str:
    rows = []
    for measurement in measurements:
        in_a_row, at_once = measurement["seconds"][IN_A_ROW], measurement["seconds"][AT_ONCE]
        row = (spread(in_a_row), spread(at_once), spread(ratios(in_a_row, at_once)))
        rows.append((measurement["seeds"], measurement["batch_size"], *row))
    header = ("seeds", "batch", f"{IN_A_ROW}, s", f"{AT_ONCE}, s", f"{IN_A_ROW} / {AT_ONCE}")
    return markdown("Seconds of one epoch of all seeds: median (range) over the rounds.", header, rows)


if __name__ == "__main__":
    run_command(main)
