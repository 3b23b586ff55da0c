"""Measure the costs of each encoder and head: parameters, memory and time, and how time grows as D doubles.

Measures the rows of a grid file that `main.py` trains, all in one process and in turns, on zoos of random weights with
the sizes of the released MNIST zoo (and with `--widths` other D; D_k = D_v = D / 2, D_A = 2 D): a training step of 16
networks; the peak of its memory above parameters, optimizer state and stored data; a whole epoch, training and
validation, of a zoo of 600 networks, of which 420 train. Reading a network's features once, before the first epoch, is
counted by itself.

    python scripts/benchmarks/encoders_and_heads.py [--grid FILE] [--widths 16 32 64] [--plot FILE] [--out FILE]
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from growth_plot import plot_growth
from large_zoo import MIB
from measuring import Case, begin, markdown, parser, progress, ratios, released_sizes, spread, write_measurements
from peak_memory import check_peak_memory, peak_memory
from two_ways import TRAINING_STEP, OurWay

from nfn_transformer import ModelConfig
from nfn_transformer import main as training
from nfn_transformer.cli.command_line import number_in, positive_int, run_command
from nfn_transformer.grids.grid_file import GridRow, flags_to_argv, read_grid

GRID = Path(__file__).parents[1] / "tables/encoders_and_heads.yaml"


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    device = begin(flags)
    check_peak_memory(device)
    rows = [row for row in read_grid(flags.grid).rows if row.command == "main"]
    cases = {row.name: Case(model=_model(row), networks=flags.networks) for row in rows}
    measurements = {name: {"name": name, **_memory(case, device)} for name, case in cases.items()}
    for place in range(flags.rounds):
        for name, case in cases.items():
            progress(f"epoch {place + 1} of {flags.rounds}: {name} ...")
            _measure_epoch(measurements[name], case, device)
    for width in flags.widths:
        seconds = _steps(cases, width, device, flags)
        for name, measurement in measurements.items():
            measurement["steps"][width] = seconds[name]
    print(_table(list(measurements.values()), flags.widths))
    if flags.plot is not None:
        lines = {name: list(measurement["steps"].values()) for name, measurement in measurements.items()}
        plot_growth(flags.plot, flags.widths, lines, "A training step on 16 networks")
    write_measurements(flags, device, list(measurements.values()))
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__, rounds=3)
    made.add_argument("--grid", type=Path, default=GRID, help="whose rows are measured")
    made.add_argument("--widths", type=_even, nargs="+", default=[16, 32, 64], help="D, multiples of 2")
    made.add_argument("--networks", type=number_in(int, 7), default=600, help="in the zoo; 70 %% train")
    made.add_argument("--seconds", type=number_in(float, 0), default=0.3, help="of one measurement of steps")
    made.add_argument("--plot", type=Path, help="a PNG file for time against D")
    return made


def _even(text: str) -> int:
    value = positive_int(text)
    if value % 2:
        raise argparse.ArgumentTypeError(f"'{text}', expected a multiple of 2")
    return value


def _model(row: GridRow) -> ModelConfig:
    """Return the configuration that main.py makes of a row's flags."""
    return ModelConfig.from_flags(vars(training.build_parser().parse_args(flags_to_argv(row.flags))))


def _memory(case: Case, device: torch.device) -> dict:
    """Parameters, and bytes of a step that begins without gradients; seconds are to follow."""
    way = OurWay(device)
    way.prepare(case)
    way.training_step()
    for parameter in way.model.parameters():
        parameter.grad = None
    memory = peak_memory(way.training_step, device)
    parameters = sum(parameter.numel() for parameter in way.model.parameters())
    return {"parameters": parameters, "bytes": memory, "reading": [], "epochs": [], "steps": {}}


def _measure_epoch(measurement: dict, case: Case, device: torch.device) -> None:
    """Add seconds of reading and of an epoch, the second one, as a first one warms up."""
    turns: list[float] = []
    OurWay(device).epochs(case, 2, turns.append)
    reading, _, epoch = turns
    measurement["reading"].append(reading)
    measurement["epochs"].append(epoch)


def _steps(cases: dict[str, Case], width: int, device: torch.device, flags: argparse.Namespace) -> dict[str, list]:
    """Seconds of a step at a width D, a figure a round, by name."""
    progress(f"training steps at D = {width} ...")
    ways = {name: OurWay(device) for name in cases}
    for name, case in cases.items():
        ways[name].prepare(Case(released_sizes(width), case.model))
    repetitions = {name: way.repetitions(TRAINING_STEP, flags.seconds) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(flags.rounds):
        for name, way in ways.items():
            seconds[name].append(way.seconds(TRAINING_STEP, repetitions[name]))
    return seconds


def _table(measurements: Sequence[dict], widths: Sequence[int]) -> str:
    rows = []
    for measurement in measurements:
        steps: dict[int, list[float]] = measurement["steps"]
        growth = [
            f"{statistics.median(ratios(steps[wide], steps[narrow])):.2g}"
            for narrow, wide in itertools.pairwise(widths)
        ]
        times = (spread(steps[width], 1000) for width in widths)
        memory, epoch = f"{measurement['bytes'] / MIB:.3g}", spread(measurement["epochs"])
        costs = (f"{measurement['parameters']:,}", spread(measurement["reading"]), epoch, memory)
        rows.append((measurement["name"], *costs, *times, ", ".join(growth)))
    steps = (f"step at D = {width}, ms" for width in widths)
    header = ("", "parameters", "reading, s", "epoch, s", "step, MiB", *steps, "growth")
    return markdown("Median (range) over the rounds; growth is of the step from one D to the next.", header, rows)


if __name__ == "__main__":
    run_command(main)
