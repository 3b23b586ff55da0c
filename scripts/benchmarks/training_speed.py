"""How fast Transformer-NFN is trained: our way against the published way, in turns, each in a process of its own.

Measures predictions for a batch, a training step, and whole epochs (training and validation) with the published
settings, on a zoo of random weights with the sizes of the released MNIST zoo. Rounds go published, ours, published,
ours, ...; a table gives the median and range over the rounds of each way's time, and of their ratio in each round. On
a GPU, our CUDA graphs and compiled step are measured, too.

    python scripts/benchmarks/training_speed.py [--batch_sizes 16 128 1024] [--rounds 5] [--out FILE]

`forward` is what both ways compute for a batch in an epoch, without gradients: the published one from weights, ours
from features that were read once; `forward from weights` reads them anew. A published step begins with a batch that
workers have collated, ours with indices into the stored features.
"""

import argparse
from collections.abc import Mapping, Sequence

from measuring import NETWORKS, Case, begin, markdown, parser, progress, ratios, spread, write_measurements
from taking_turns import OURS, PUBLISHED, VARIANTS, WayProcess, epochs_in_turns, operation_in_turns, processes, ways
from two_ways import FORWARD, FORWARD_FROM_WEIGHTS, OPERATIONS, TRAINING_STEP

from nfn_transformer.cli.command_line import number_in, positive_int, run_command

EPOCH = "epoch"
NAMES = {FORWARD: "forward", FORWARD_FROM_WEIGHTS: "forward from weights", TRAINING_STEP: "training step"}
WITHOUT_VARIANTS = (FORWARD, FORWARD_FROM_WEIGHTS)

Seconds = Mapping[str, Sequence[float]]


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    device = begin(flags)
    measurements: list[dict] = []
    with processes(ways(device, flags.workers, flags.variants)) as running:
        for batch_size in flags.batch_sizes:
            case = Case(batch_size=batch_size, networks=flags.networks)
            measurements += _operations(list(running.values()), case, flags)
            measurements += _epochs(list(running.values()), case, flags)
    print(_table(measurements))
    print(_table_of_costs(measurements))
    write_measurements(flags, device, measurements)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__, rounds=5)
    made.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[16, 128, 1024], help="of a step")
    made.add_argument("--networks", type=number_in(int, 7), default=NETWORKS, help="in the zoo; 70 %% train")
    made.add_argument("--workers", type=number_in(int, 0), default=2, help="processes that collate published batches")
    made.add_argument("--seconds", type=number_in(float, 0), default=0.5, help="of one measurement, epochs apart")
    made.add_argument("--variants", choices=VARIANTS, nargs="*", help="of our step (default: all that the device has)")
    return made


def _operations(running: Sequence[WayProcess], case: Case, flags: argparse.Namespace) -> list[dict]:
    """Measurements of the operations on one batch."""
    for process in running:
        process.ask("prepare", case)
    found = []
    for operation in OPERATIONS:
        progress(f"{NAMES[operation]}, batch {case.batch_size} ...")
        taking_part = [process for process in running if process.name in (PUBLISHED, OURS)]
        taking_part = taking_part if operation in WITHOUT_VARIANTS else running
        times = operation_in_turns(taking_part, operation, flags.rounds, flags.seconds)
        found.append({"what": NAMES[operation], "batch_size": case.batch_size, "seconds": times})
    return found


def _epochs(running: Sequence[WayProcess], case: Case, flags: argparse.Namespace) -> list[dict]:
    """Measurements of whole epochs."""
    progress(f"{EPOCH}, batch {case.batch_size} ...")
    once, times = epochs_in_turns(running, case, flags.rounds)
    return [{"what": EPOCH, "batch_size": case.batch_size, "once": once, "seconds": times}]


def _table(measurements: Sequence[dict]) -> str:
    rows = []
    for measurement in sorted(measurements, key=_place):
        published, *ours = measurement["seconds"]
        for name in ours:
            rows.append(_row(measurement, published, name))
    header = ("", "batch", "published, ms", "ours, ms", "published / ours")
    return markdown("Median (range) over the rounds; the ratio is that of each round.", header, rows)


def _place(measurement: dict) -> int:
    """Rows of one operation stand together; of one operation, batches as they were asked for."""
    return [*NAMES.values(), EPOCH].index(measurement["what"])


def _row(measurement: dict, published: str, name: str) -> tuple[object, ...]:
    seconds: Seconds = measurement["seconds"]
    what = measurement["what"] + name.removeprefix(OURS)
    ratio = spread(ratios(seconds[published], seconds[name]))
    return what, measurement["batch_size"], spread(seconds[published], 1000), spread(seconds[name], 1000), ratio


def _table_of_costs(measurements: Sequence[dict]) -> str:
    """Return the table of costs that a training has once, before its first epoch."""
    costs = [measurement["once"] for measurement in measurements if "once" in measurement]
    rows = [
        ("published: collecting samples", spread([cost[PUBLISHED] for cost in costs], 1000)),
        ("ours: reading features", spread([cost[OURS] for cost in costs], 1000)),
    ]
    return markdown("Once, before the first epoch, for the training and the validation side.", ("", "ms"), rows)


if __name__ == "__main__":
    run_command(main)
