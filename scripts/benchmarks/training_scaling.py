"""How a training step's time grows with the sizes of the networks and of the predictor, our way and the published way.

Starts from the sizes of the released MNIST zoo (D = 32, h = 2 heads, two blocks) and the published 10 channels, and
changes one at a time: D (with D_k = D_v = D / h and D_A = 2 D), heads, blocks, channels; at last the number of
networks, by whole epochs. Ways take turns in processes of their own. A list without entries leaves its part out.

    python scripts/benchmarks/training_scaling.py [--widths 32 64 128] [--plot FILE.png] [--out FILE]

The Phi of s_QK in E(B) and E(b^B) hold e d D^3 numbers each: at D = 128, two blocks have 86 million parameters, and
both ways together take 6 GiB.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from growth_plot import plot_growth
from measuring import (
    RELEASED,
    Case,
    begin,
    markdown,
    parser,
    progress,
    ratios,
    released_sizes,
    spread,
    write_measurements,
)
from taking_turns import OURS, PUBLISHED, WayProcess, epochs_in_turns, operation_in_turns, processes, ways
from two_ways import TRAINING_STEP

from nfn_transformer import ModelConfig
from nfn_transformer.cli.command_line import channel_counts, number_in, positive_int, run_command

WIDTH, HEADS, BLOCKS, CHANNELS, ZOO = "D", "heads", "blocks", "channels", "networks in the zoo"


@dataclass(frozen=True)
class Part:
    """A series of cases: what changes, its value, and whether epochs are measured rather than steps."""

    what: str
    value: str
    case: Case
    epochs: bool = False


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    device = begin(flags)
    measurements = []
    makers = ways(device, flags.workers)
    with processes({name: makers[name] for name in (PUBLISHED, OURS)}) as running:
        for part in _parts(flags):
            measurements.append(_measure(list(running.values()), part, flags))
    steps = [measurement for measurement in measurements if measurement["what"] != ZOO]
    epochs = [measurement for measurement in measurements if measurement["what"] == ZOO]
    if steps:
        print(_table("Milliseconds of a training step: median (range) over the rounds.", steps, "ms", 1000))
    if epochs:
        print(_table("Seconds of an epoch: median (range) over the rounds.", epochs, "s", 1))
    if flags.plot is not None:
        _plot(flags, measurements)
    write_measurements(flags, device, measurements)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__, rounds=3)
    many = {"nargs": "*", "type": positive_int}
    made.add_argument("--widths", **many, default=[32, 64, 128], help="D, multiples of 2")
    made.add_argument("--heads", **many, default=[2, 4, 8], help="h at D = 32, of which they are divisors")
    made.add_argument("--blocks", **many, default=[1, 2, 4], help="encoder blocks")
    channels = [(10,), (10, 10), (20,), (40,)]
    made.add_argument("--channels", nargs="*", type=channel_counts, default=channels, help="as in 10,10")
    made.add_argument("--networks", **many, default=[500, 1000, 2000], help="in the zoo, for seconds of an epoch")
    made.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[16, 128], help="networks of a batch")
    made.add_argument("--workers", type=number_in(int, 0), default=2, help="processes that collate published batches")
    made.add_argument("--seconds", type=number_in(float, 0), default=0.3, help="of one measurement; at least one step")
    made.add_argument("--plot", type=Path, help="a PNG file for time against D at the largest batch")
    return made


def _parts(flags: argparse.Namespace) -> Iterator[Part]:
    """All that is measured; of each size both batches follow each other."""
    specs = [
        *((WIDTH, value, released_sizes(width=value)) for value in flags.widths),
        *((HEADS, value, released_sizes(heads=value)) for value in flags.heads),
        *((BLOCKS, value, released_sizes(blocks=value)) for value in flags.blocks),
    ]
    cases = [(what, value, Case(spec)) for what, value, spec in specs]
    for channels in flags.channels:
        name = ", ".join(map(str, channels))
        cases.append((CHANNELS, name, Case(RELEASED, ModelConfig(options={"transformers_nfn_channels": channels}))))
    cases += [(ZOO, networks, Case(networks=networks)) for networks in flags.networks]
    for batch_size in flags.batch_sizes:
        for what, value, case in cases:
            yield Part(what, str(value), replace(case, batch_size=batch_size), epochs=what == ZOO)


def _measure(running: Sequence[WayProcess], part: Part, flags: argparse.Namespace) -> dict:
    """Seconds of each way, a figure a round."""
    progress(f"{part.what} {part.value}, batch {part.case.batch_size} ...")
    if part.epochs:
        _, seconds = epochs_in_turns(running, part.case, flags.rounds)
    else:
        for process in running:
            process.ask("prepare", part.case)
        seconds = operation_in_turns(running, TRAINING_STEP, flags.rounds, flags.seconds)
    return {"what": part.what, "value": part.value, "batch_size": part.case.batch_size, "seconds": seconds}


def _table(title: str, measurements: Sequence[dict], unit: str, scale: float) -> str:
    rows = []
    for measurement in measurements:
        seconds: Mapping[str, Sequence[float]] = measurement["seconds"]
        published, ours = seconds[PUBLISHED], seconds[OURS]
        row = (spread(published, scale), spread(ours, scale), spread(ratios(published, ours)))
        rows.append((measurement["what"], measurement["value"], measurement["batch_size"], *row))
    header = ("", "value", "batch", f"published, {unit}", f"ours, {unit}", "published / ours")
    return markdown(title, header, rows)


def _plot(flags: argparse.Namespace, measurements: Sequence[dict]) -> None:
    batch_size = max(flags.batch_sizes)
    chosen = [
        measurement
        for measurement in measurements
        if measurement["what"] == WIDTH and measurement["batch_size"] == batch_size
    ]
    widths = [int(measurement["value"]) for measurement in chosen]
    lines = {name: [measurement["seconds"][name] for measurement in chosen] for name in (PUBLISHED, OURS)}
    plot_growth(flags.plot, widths, lines, f"A training step on {batch_size} networks")


if __name__ == "__main__":
    run_command(main)
