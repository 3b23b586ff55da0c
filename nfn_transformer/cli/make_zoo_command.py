"""Making of a zoo by checked flags of make_zoo.py: populations trained here or by workers, and the zoo written."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nfn_transformer.atomic_files import write_text
from nfn_transformer.bundled import RECIPES, find_bundled
from nfn_transformer.cli.command_line import (
    EXIT_INTERRUPTED,
    find_device,
    started_as,
)
from nfn_transformer.errors import UserError
from nfn_transformer.generation.estimate import estimate, population_size
from nfn_transformer.generation.histogram import histogram_path, save_histogram
from nfn_transformer.generation.recipe import Recipe, read_recipe
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.task_data import task_data
from nfn_transformer.generation.work_folder import WorkFolder
from nfn_transformer.generation.workers import run_workers, wait_for_others
from nfn_transformer.generation.zoo_maker import ZooSummary, open_work_folder, train_share, write_zoo
from nfn_transformer.generation.zoo_plan import ZooPlan, runs_table
from nfn_transformer.launch.flags import build_launcher
from nfn_transformer.resources import limit_threads


def make_zoo_by_flags(options: argparse.Namespace, snapshots: tuple[str, ...], program: Sequence[str]) -> int:
    """Make the zoo that flags describe; return 0 once it is written, 130 if interrupted.

    Args:
        options: the flags.
        snapshots: names of a run's checkpoints.
        program: Python's arguments, with which a worker is started.
    """
    limit_threads()
    if options.launcher != "slurm" or options.worker is not None:
        find_device(options.device)
    data = task_data(options)
    plan = _plan(options, snapshots, data)
    try:
        if options.worker is not None:
            work = WorkFolder(plan.out)
            work.check(plan.configuration(data))
            train_share(plan, data, find_device(options.device), work)
            write_text(options.worker, "")
            return 0
        if options.dry_run:
            _announce(plan, data, options)
            print(runs_table(plan.runs), end="")
            return 0
        if is_finished(plan.out, plan.configuration(data)):
            return 0
        _announce(plan, data, options)
        _make(plan, data, options, program)
    except KeyboardInterrupt:
        print("interrupted; finished networks are kept, and the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def is_finished(out: Path, configuration: Mapping[str, object]) -> bool:
    """Return whether a killed command of this configuration has written the zoo, and say so.

    Raises:
        UserError: another zoo, or anything else, lies at its path.
    """
    if not out.exists():
        return False
    work = WorkFolder(out)
    if work.is_written(configuration):
        work.remove()
        print(f"{out}: is finished")
        return True
    raise UserError(f"--out {out}: already exists; choose another path or delete it")


def print_reading(flags: str) -> None:
    """Print the command that trains a predictor on a new zoo; `flags` say which zoo, what is learned, and how."""
    print(f"train on it by\n  {started_as('main.py')} {flags}")


def train_populations(
    work: WorkFolder,
    total: int,
    jobs: int,
    options: argparse.Namespace,
    argv: Sequence[str],
    train_here: Callable[[], object],
) -> None:
    """Train what is left, in this process or in workers.

    Args:
        work: the owned work folder.
        total: number of populations.
        jobs: number of processes that train at once.
        options: the flags.
        argv: Python's arguments for a worker, without `--worker FILE`.
        train_here: trains all populations that no other process trains.

    Raises:
        UserError: populations are left.
    """
    if jobs == 1 and options.launcher == "processes":
        train_here()
    elif left := work.unfinished(total):
        run_workers(argv, min(jobs, len(left)), build_launcher(options, work.path / "submitit"), work, total)
    wait_for_others(work, total)
    if left := work.unfinished(total):
        raise UserError(f"{work.path}: {len(left)} populations are not finished; the same command goes on from there")


def _recipe(options: argparse.Namespace) -> Recipe:
    defaults = {"runs": options.runs, "hidden": options.hidden, "epochs": (options.epochs,)}
    defaults |= {name: (getattr(options, name),) for name in ("embed_dim", "n_attention_heads", "n_layers")}
    path = options.recipe
    return Recipe(**defaults) if path is None else read_recipe(find_bundled(path, RECIPES), defaults)


def _plan(options: argparse.Namespace, snapshots: tuple[str, ...], data: TaskData) -> ZooPlan:
    plan = ZooPlan(
        out=options.out,
        dataset=options.dataset,
        runs=_recipe(options).draw(options.seed),
        population=options.population or 1,
        patch=options.patch,
        seed=options.seed,
        batch_size=options.batch_size,
        crop_padding=options.crop_padding,
        snapshots=snapshots,
        snapshot_unit=options.snapshot_unit,
        half=options.half,
    )
    for run in plan.runs:
        plan.training(run, data)
    return plan if options.population else replace(plan, population=_population_size(plan, data, options))


def _population_size(plan: ZooPlan, data: TaskData, options: argparse.Namespace) -> int:
    if size := WorkFolder(plan.out).population_size():
        return size
    if options.launcher == "slurm":
        raise UserError("--launcher slurm requires --population: this machine cannot see the cluster's memory")
    device = find_device(options.device)
    all_gpus = device.type == "cuda" and options.device in ("auto", "cuda")
    processes = -(-(options.jobs or 1) // (torch.cuda.device_count() if all_gpus else 1))
    return population_size(plan, data, device, processes)


def _announce(plan: ZooPlan, data: TaskData, options: argparse.Namespace) -> None:
    total = len(plan.populations())
    finished = set(range(total)) - set(WorkFolder(plan.out).unfinished(total))
    expected = estimate(plan, data, None if options.launcher == "slurm" else find_device(options.device), finished)
    done = f", {len(finished)} of them finished" if finished else ""
    time = ""
    if (seconds := expected.seconds) is not None:
        time = " and " + (f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s") + " of training"
        time += " by one process" if _jobs(plan, options) > 1 else ""
    print(
        f"{len(plan.runs)} runs in {total} populations of at most {plan.population}{done}, "
        f"{len(data.train.labels)} train and {len(data.test.labels)} test samples, {data.classes} classes: "
        f"{expected.checkpoints} checkpoints, about {expected.size / 2**20:.0f} MiB{time}",
        flush=True,
    )


def _report(summary: ZooSummary, plan: ZooPlan) -> None:
    if summary.diverged:
        path = plan.out.with_name(plan.out.name.removesuffix(".zip") + "_diverged.csv")
        runs, epochs = [one.run for one in summary.diverged], [one.epoch for one in summary.diverged]
        write_text(path, runs_table(runs, epochs))
        print(f"{len(summary.diverged)} runs have diverged, and are left out from then on: {path}")
    if summary.overflows:
        print(f"{summary.overflows} checkpoints are not finite in half precision, and are left out")
    if not len(summary.accuracies):
        print(f"{plan.out}: no network is left")
        return
    picture = histogram_path(plan.out)
    save_histogram(summary.accuracies, f"{len(summary.accuracies)} networks of {plan.out.name}", picture)
    low, median, high = (summary.accuracies.quantile(q).item() for q in (0, 0.5, 1))
    print(
        f"{plan.out}: {len(summary.accuracies)} checkpoints of {len(plan.runs)} runs, "
        f"accuracy {low:.4f} to {high:.4f}, median {median:.4f}"
        + (f"; histogram in {picture}" if picture.is_file() else "")
    )


def _jobs(plan: ZooPlan, options: argparse.Namespace) -> int:
    """Return the number of processes that train at once."""
    return options.jobs or (len(plan.populations()) if options.launcher == "slurm" else 1)


def _make(plan: ZooPlan, data: TaskData, options: argparse.Namespace, program: Sequence[str]) -> None:
    """Train what is left, in this process or in workers, and write the zoo."""
    argv = [*program, "--population", str(plan.population)]
    with open_work_folder(plan, data) as work:
        jobs, total, device = _jobs(plan, options), len(plan.populations()), find_device(options.device)
        train_populations(work, total, jobs, options, argv, lambda: train_share(plan, data, device, work))
        write_zoo(plan, data, work, lambda summary: _report(summary, plan))
    place = f"--dataset {shlex.quote(plan.dataset)} --data_path {shlex.quote(str(plan.out))}"
    print_reading(" ".join(filter(None, (plan.reading(data), place))))
