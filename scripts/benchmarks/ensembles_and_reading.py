"""Measure what the complete encoder costs: steps of ensembles, and reading invariants of networks of several widths.

A step of K members side by side, plain and on a GPU with CUDA graphs, on a batch of 16 and one of 128 networks of the
released MNIST zoo's sizes; and networks a second whose invariants are read, by width D.

    python scripts/benchmarks/ensembles_and_reading.py [--members 1 5] [--widths 32 128] [--rounds 3] [--out FILE]
"""

import argparse
from collections.abc import Sequence

import torch
from measuring import Case, begin, markdown, parser, progress, random_zoo, released_sizes, spread, write_measurements
from two_ways import TRAINING_STEP, OurWay

from nfn_transformer import ModelConfig, read_invariants
from nfn_transformer.cli.command_line import number_in, positive_int, run_command

BATCH_SIZES = (16, 128)


def main(arguments: Sequence[str]) -> int:
    """Measure and print both tables."""
    flags = _parser().parse_args(arguments)
    device = begin(flags)
    reading = [_reading(width, flags, device) for width in flags.widths]
    rows = [(entry["width"], spread(entry["networks_per_second"])) for entry in reading]
    print(markdown("Networks a second whose invariants are read: median (range).", ("D", "networks / s"), rows))
    steps = [_step(members, size, flags, device) for size in BATCH_SIZES for members in flags.members]
    columns = list(steps[0]["seconds"])
    rows = [
        (entry["members"], entry["batch_size"], *(spread(entry["seconds"][name], 1000) for name in columns))
        for entry in steps
    ]
    header = ("members", "batch", *(f"{name}, ms" for name in columns))
    print(markdown("A training step of the complete encoder: median (range) over the rounds.", header, rows))
    write_measurements(flags, device, [*reading, *steps])
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__, rounds=3)
    made.add_argument("--members", type=positive_int, nargs="+", default=[1, 5], help="of the ensembles")
    made.add_argument("--widths", type=positive_int, nargs="+", default=[32, 128], help="D of what is read")
    made.add_argument("--networks", type=positive_int, default=256, help="that are read")
    made.add_argument("--seconds", type=number_in(float, 0), default=0.3, help="of one measurement of steps")
    return made


def _reading(width: int, flags: argparse.Namespace, device: torch.device) -> dict:
    """Return networks per second at one width, a figure a round, after one round that warms up."""
    progress(f"reading at D = {width} ...")
    zoo = random_zoo(released_sizes(width), flags.networks)
    way, rates = OurWay(device), []
    way.read = lambda: read_invariants(zoo.weights(torch.arange(flags.networks)).to(device))
    for number in range(flags.rounds + 1):
        seconds = way.seconds("read", 1)
        rates += [flags.networks / seconds] if number else []
    return {"what": "reading", "width": width, "networks_per_second": rates}


def _step(members: int, batch_size: int, flags: argparse.Namespace, device: torch.device) -> dict:
    """Return seconds of a step, plain and on a GPU with CUDA graphs, a figure a round."""
    progress(f"{members} members, batch {batch_size} ...")
    model = ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no", dropout=0.4, ensemble=members)
    seconds: dict[str, list[float]] = {}
    variants = {"plain": {}, **({"CUDA graphs": {"cuda_graphs": True}} if device.type == "cuda" else {})}
    for name, settings in variants.items():
        way = OurWay(device, **settings)
        way.prepare(Case(model=model, batch_size=batch_size))
        repetitions = way.repetitions(TRAINING_STEP, flags.seconds)
        seconds[name] = [way.seconds(TRAINING_STEP, repetitions) for _ in range(flags.rounds)]
    return {"what": "step", "members": members, "batch_size": batch_size, "seconds": seconds}


if __name__ == "__main__":
    run_command(main)
