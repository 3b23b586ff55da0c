"""How many networks a second are trained as one population, and how many one at a time.

Both train the same networks, of the released MNIST zoo's sizes, on the same random images with the same code, batches
of 32 with random crops and Adam, in turns; networks per second count a training of --epochs epochs of --samples images.
Where there is a GPU, also what the whole recipe of the released MNIST zoo would take (60,000 images, 100 epochs).

    python scripts/benchmarks/populations.py [--sizes 64] [--patch 7] [--rounds 3] [--out FILE]
"""

import argparse
import statistics
from collections.abc import Sequence

import torch
from measuring import begin, markdown, parser, progress, ratios, seconds_of_one, spread, write_measurements

from nfn_transformer import make_generator
from nfn_transformer.cli.command_line import number_in, positive_int, run_command
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, ZooRun, run_spec
from nfn_transformer.generation.images import ImageData
from nfn_transformer.generation.population import Population
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.generation.training_plan import TrainingPlan

ARCHITECTURE = Architecture(embed_dim=32, n_attention_heads=2, n_layers=2, hidden=64)
SETTINGS = Hyperparameters("adam", 0.2, 1e-6, 1.0, 0.1, 0.001)
BATCH_SIZE = 32
SIDE = 28

WHOLE_RECIPE = 60_000 * 100
RELEASED_RUNS = 12_500

ALONE, TOGETHER = "one at a time", "together"


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    device = begin(flags)
    data = _random_images(flags.samples).to(device)
    plan = TrainingPlan(run_spec(ARCHITECTURE, data, flags.patch), 1, BATCH_SIZE, 2, ("100",), half=False)
    sizes = flags.sizes or ([64] if device.type == "cpu" else [64, 512, 4096])
    measurements = [_measure(plan, data, size, flags, device) for size in sizes]
    print(_table(measurements, flags))
    if device.type == "cuda":
        rate = statistics.median(measurements[-1]["networks_per_second"][TOGETHER])
        hours = RELEASED_RUNS * WHOLE_RECIPE / (flags.epochs * flags.samples) / rate / 3600
        print(f"\n{RELEASED_RUNS:,} runs of 60,000 images and 100 epochs, extrapolated: {hours:.1f} GPU-hours")
    write_measurements(flags, device, measurements)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__, rounds=3)
    made.add_argument(
        "--sizes", type=positive_int, nargs="+", help="networks trained together (64; on a GPU also 512, 4096)"
    )
    made.add_argument("--alone", type=positive_int, default=8, help="so many of them are trained one at a time")
    made.add_argument("--samples", type=number_in(int, BATCH_SIZE), default=640, help="images")
    made.add_argument("--patch", type=positive_int, default=7, help="pixels of a patch's side, a divisor of 28")
    made.add_argument("--epochs", type=positive_int, default=2, help="of each training")
    return made


def _random_images(count: int) -> ImageData:
    generator = make_generator(0, "benchmark")
    inputs = torch.rand(count, 1, SIDE, SIDE, generator=generator) * 2 - 1
    part = LabelledSamples(inputs, torch.randint(10, (count,), generator=generator))
    return ImageData(part, part.first(1), classes=10)


def _measure(
    plan: TrainingPlan, data: ImageData, size: int, flags: argparse.Namespace, device: torch.device
) -> dict[str, object]:
    """Networks per second of both ways, a figure a round."""
    found: dict[str, list[float]] = {ALONE: [], TOGETHER: []}
    runs = [ZooRun(number, SETTINGS, ARCHITECTURE, flags.epochs) for number in range(size)]
    groups = {ALONE: [[run] for run in runs[: flags.alone]], TOGETHER: [runs]}
    for number in range(flags.rounds + 1):
        progress(f"{size} networks, round {number} of {flags.rounds} ...")
        for way, parts in groups.items():
            rate = sum(map(len, parts)) / _seconds(plan, data, parts, device)
            if number:  # the first is there to warm up
                found[way].append(rate)
    return {"what": "training", "networks": size, "networks_per_second": found}


def _seconds(plan: TrainingPlan, data: ImageData, groups: Sequence[list[ZooRun]], device: torch.device) -> float:
    """All steps of groups of networks, one group after another; making the networks is not counted."""
    populations = [Population(plan, runs, data) for runs in groups]

    def train() -> None:
        for population in populations:
            while population.in_training:
                population.step()

    return seconds_of_one(train, 1, device)


def _table(measurements: Sequence[dict], flags: argparse.Namespace) -> str:
    rows = []
    for measurement in measurements:
        alone, together = (measurement["networks_per_second"][way] for way in (ALONE, TOGETHER))
        rows.append((measurement["networks"], spread(alone), spread(together), spread(ratios(together, alone))))
    title = f"Networks per second, {flags.epochs} epochs of {flags.samples} images: median (range) over the rounds."
    return markdown(title, ("networks", f"{ALONE}", f"{TOGETHER}", f"{TOGETHER} / {ALONE}"), rows)


if __name__ == "__main__":
    run_command(main)
