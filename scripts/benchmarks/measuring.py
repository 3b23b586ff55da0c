"""Shared parts of the training benchmarks: zoos of random weights, medians and ranges, tables, and the machine."""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from nfn_transformer import (
    BlockSpec,
    EmbeddingSpec,
    FeedForwardSpec,
    ModelConfig,
    TransformerSpec,
    Zoo,
    build_predictor,
    make_generator,
)
from nfn_transformer.cli.command_line import HelpFormatter, find_device, positive_int
from nfn_transformer.families.registry import FAMILIES, AnySpec
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig
from nfn_transformer.training.data import RunData, Split, prepare, split_runs
from nfn_transformer.training.run import Run
from nfn_transformer.training.run_directory import RunDirectory, write_json
from nfn_transformer.training.step import build_optimizer
from nfn_transformer.zoo.faults import FaultReport
from nfn_transformer.zoo.metadata import ABSENT, HYPERPARAMETERS

NETWORKS = 2926
"""A zoo whose training side has 2048 networks: whole batches of 16, 128 and 1024."""

PUBLISHED = ModelConfig()


def released_sizes(width: int = 32, heads: int = 2, blocks: int = 2) -> TransformerSpec:
    """Sizes of the released MNIST zoo's networks; others keep their ratios D_k = D_v = D / h and D_A = 2 D."""
    block = BlockSpec(heads, width, width // heads, width // heads, 2 * width)
    classifier, embedding = FeedForwardSpec((width, width, 10)), EmbeddingSpec(1, width, (7, 7), 16)
    return TransformerSpec((block,) * blocks, classifier, embedding)


RELEASED = released_sizes()


@dataclass(frozen=True)
class Case:
    """A case that is measured: sizes of the networks, the predictor, the batch, and how many networks there are
    (a single training step sees one batch of them)."""

    spec: TransformerSpec = RELEASED
    model: ModelConfig = PUBLISHED
    batch_size: int = 16
    networks: int = NETWORKS


def random_zoo(spec: AnySpec, networks: int) -> Zoo:
    """A zoo of random weights, normal with standard deviation 0.1, and random accuracies; the same in every process."""
    shapes = FAMILIES[spec.family].shapes(spec)
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    generator = make_generator(0, "benchmark")
    names = [f"run{index:06d}_75_0.pt" for index in range(networks)]
    return Zoo(
        spec=spec,
        shapes=shapes,
        rows=torch.randn(networks, numbers, generator=generator).mul_(0.1),
        labels=torch.rand(networks, generator=generator),
        names=names,
        runs=[name.split("_")[0] for name in names],
        report=FaultReport(networks),
        hyperparameters=torch.full((networks, len(HYPERPARAMETERS)), ABSENT),
    )


def new_run(zoo: Zoo, model: ModelConfig, config: TrainingConfig, seed: int, device: torch.device, folder: Path) -> Run:
    """Return the package's own training of one seed, as its command makes it, which writes to a new directory."""
    run = _run(prepare(zoo, split_runs(zoo.runs, seed)), model, config, seed, device)
    run.directory = RunDirectory(folder / f"seed{seed}")
    run.directory.path.mkdir()
    return run


def run_of_steps(zoo: Zoo, model: ModelConfig, config: TrainingConfig, seed: int, device: torch.device) -> Run:
    """Return a training that makes single steps on all of a zoo, without a directory."""
    everyone = torch.arange(len(zoo))
    return _run(RunData(zoo, Split(everyone, everyone, everyone), {}), model, config, seed, device)


def _run(data: RunData, model: ModelConfig, config: TrainingConfig, seed: int, device: torch.device) -> Run:
    predictor = build_predictor(data.zoo.spec, model, seed).to(device)
    settings = RunConfig(seed, NETWORK, DataConfig("random", "nowhere"), model, config, str(device))
    return Run(settings, data, predictor, build_optimizer(config, predictor.parameters()))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of_one(call: Callable[[], object], repetitions: int, device: torch.device) -> float:
    """Mean seconds of calls in a row, after one that does not count where a single one is short."""
    if repetitions > 1:
        call()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repetitions):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / repetitions


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median and range of measurements, three digits of each, as in `12.3 (11.9 to 13)`."""
    middle, least, most = (f"{_digits(pick(values) * scale)}" for pick in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def ratios(of: Sequence[float], by: Sequence[float]) -> list[float]:
    """How many times as large one measurement is as the other of its round."""
    return [a / b for a, b in zip(of, by, strict=True)]


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table under its title."""
    lines = [header, ["---"] * len(header), *rows]
    return f"\n{title}\n\n" + "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def progress(text: str) -> None:
    """A line that says what is being measured; on stderr, so that the tables stand alone on stdout."""
    print(text, file=sys.stderr, flush=True)


def machine(device: torch.device) -> dict[str, str | int]:
    """Return the properties of the machine that figures were measured on."""
    found = {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return {**found, "torch": version("torch"), "python": platform.python_version()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """A benchmark's parser with the flags that all have."""
    made = argparse.ArgumentParser(description=description, formatter_class=_Help)
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--threads", type=positive_int, help="of PyTorch on the CPU (default: as many as it takes)")
    made.add_argument("--out", type=Path, help="a JSON file for all measurements")
    if rounds:
        made.add_argument("--rounds", type=positive_int, default=rounds, help="how often all are measured, in turns")
    return made


class _Help(HelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the defaults of the flags."""


def begin(flags: argparse.Namespace) -> torch.device:
    """Heed the flags of `parser`, say what this is measured on, and return the device.

    Raises:
        UserError: there is no such device.
    """
    device = find_device(flags.device)
    if flags.threads is not None:
        torch.set_num_threads(flags.threads)
    print("; ".join(f"{name} {value}" for name, value in machine(device).items()))
    return device


def write_measurements(flags: argparse.Namespace, device: torch.device, measurements: Sequence[dict]) -> None:
    """Write the machine, the flags and every single measurement to `--out`, where it is given."""
    if flags.out is not None:
        own = {name: str(value) if isinstance(value, Path) else value for name, value in vars(flags).items()}
        write_json(flags.out, {"machine": machine(device), "flags": own, "measurements": list(measurements)})
