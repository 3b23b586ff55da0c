"""Making of a zoo in parts by checked flags of make_zoo.py: parts trained here or by workers, and the zoo written."""

import argparse
import sys
from collections.abc import Sequence

import torch
from tqdm import tqdm

from nfn_transformer.atomic_files import write_text
from nfn_transformer.bundled import RECIPES, find_bundled
from nfn_transformer.cli.command_line import EXIT_INTERRUPTED, find_device
from nfn_transformer.cli.make_zoo_command import is_finished, print_reading, train_populations
from nfn_transformer.cli.standard_zoo_plan import standard_plan
from nfn_transformer.errors import UserError
from nfn_transformer.generation.array_plan import PartsPlan
from nfn_transformer.generation.cnn_population import CnnPlan
from nfn_transformer.generation.cnn_recipe import SMALL_CNN_ZOO, read_cnn_recipe
from nfn_transformer.generation.cnn_zoo import DEPTH, CnnZooPlan, deepest
from nfn_transformer.generation.histogram import histogram_path, save_histogram
from nfn_transformer.generation.images import ImageData
from nfn_transformer.generation.progress_bar import LineNowAndThen
from nfn_transformer.generation.siren_fits import SirenPlan
from nfn_transformer.generation.siren_zoo import SirenZooPlan, digit_pictures, train_then_test
from nfn_transformer.generation.standard_networks import KINDS
from nfn_transformer.generation.task_data import task_data
from nfn_transformer.generation.training_plan import BEST, snapshot_epochs, snapshot_names
from nfn_transformer.generation.work_folder import WorkFolder
from nfn_transformer.resources import limit_threads, usable_cpus
from nfn_transformer.training.step import keep_freed_memory


def make_array_zoo_by_flags(options: argparse.Namespace, program: Sequence[str]) -> int:
    """Make the zoo that flags describe; return 0 once it is written, 130 if interrupted.

    Args:
        options: the flags.
        program: Python's arguments, with which a worker is started.
    """
    limit_threads()
    keep_freed_memory()
    plan = _PLANS[options.family](options)
    configuration = plan.configuration()
    work = WorkFolder(plan.out)
    try:
        if options.worker is not None:
            work.check(configuration)
            _train_share(plan, find_device(options.device), work)
            write_text(options.worker, "")
            return 0
        if options.dry_run:
            _announce(plan, options)
            print(plan.listing(), end="")
            return 0
        if is_finished(plan.out, configuration):
            return 0
        if plan.beside is not None and plan.beside.exists() and not work.path.exists():
            raise UserError(f"--out {plan.out}: {plan.beside} already exists; choose another path or move that file")
        _announce(plan, options)
        with work.owned(configuration):
            write_text(work.path / "runs.csv", plan.listing())
            jobs, device = _jobs(plan, options), find_device(options.device)
            train_populations(work, len(plan.parts), jobs, options, program, lambda: _train_share(plan, device, work))
            _write(plan, work)
    except KeyboardInterrupt:
        print("interrupted; finished networks are kept, and the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _siren_plan(options: argparse.Namespace) -> SirenZooPlan:
    if options.images is None:
        for flag in ("train_images", "test_images"):
            if getattr(options, flag) is not None:
                raise UserError(f"--{flag} requires --images")
        pictures = digit_pictures()
    else:
        data = task_data(options)
        assert isinstance(data, ImageData)  # --texts is refused before
        pictures = train_then_test(data)
    if (options.runs or 0) > len(pictures.labels):
        raise UserError(f"--runs {options.runs}: expected at most {len(pictures.labels)} images")
    pictures = pictures.first(options.runs)
    sizes = (2, *(options.hidden,) * options.n_layers, pictures.pixels.shape[1])
    return SirenZooPlan(
        out=options.out,
        dataset=options.dataset,
        half=options.half,
        pictures=pictures,
        siren=SirenPlan(sizes, options.steps, options.decibels),
        copies=options.copies,
        seed=options.seed,
        population=options.population or SirenZooPlan.population,
    )


def _cnn_plan(options: argparse.Namespace) -> CnnZooPlan:
    data = task_data(options)
    assert isinstance(data, ImageData)  # --texts is refused before
    if BEST in options.snapshots.split(","):
        raise UserError(f"--snapshots {options.snapshots}: expected whole numbers with --family cnn")
    names = snapshot_names(options.snapshots, options.snapshot_unit)
    epochs = snapshot_epochs(names, options.snapshot_unit, options.epochs)
    if not epochs:
        raise UserError(f"--snapshots {options.snapshots}: a training has only {options.epochs} epochs")
    return CnnZooPlan(
        out=options.out,
        dataset=options.dataset,
        half=options.half,
        data=data,
        cnn=CnnPlan(
            maps=(data.train.inputs.shape[1], *(options.hidden,) * (options.n_layers or min(DEPTH, deepest(data)))),
            classes=data.classes,
            batch_size=options.batch_size,
            seed=options.seed,
            snapshots=tuple(sorted(set(epochs.values()))),
            half=options.half,
        ),
        recipe=SMALL_CNN_ZOO if options.recipe is None else read_cnn_recipe(find_bundled(options.recipe, RECIPES)),
        runs=options.runs,
        population=options.population or CnnZooPlan.population,
    )


_PLANS = {"siren": _siren_plan, "cnn": _cnn_plan, **dict.fromkeys(KINDS, standard_plan)}
"""Family -> function that makes its plan from flags."""


def _jobs(plan: PartsPlan, options: argparse.Namespace) -> int:
    """Return the number of processes that train at once; on a CPU one for each core, as the networks are small."""
    if options.jobs is None and options.launcher == "processes" and find_device(options.device).type == "cpu":
        options.jobs = min(usable_cpus(), len(plan.parts))
    return options.jobs or (len(plan.parts) if options.launcher == "slurm" else 1)


def _announce(plan: PartsPlan, options: argparse.Namespace) -> None:
    left = sum(len(plan.parts[number]) for number in WorkFolder(plan.out).unfinished(len(plan.parts)))
    done = f", {plan.networks - left} of them finished" if left < plan.networks else ""
    time = ""
    if options.launcher != "slurm" and left:
        seconds = plan.seconds(find_device(options.device)) * left
        time = " and at most " + (f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s") + " of training"
        time += " by one process" if _jobs(plan, options) > 1 else ""
    print(f"{plan.description}{done}: about {plan.bytes / 2**20:.1f} MiB{time}", flush=True)


def _train_share(plan: PartsPlan, device: torch.device, work: WorkFolder) -> None:
    """Train all parts that are not finished and that no other process trains."""
    lines, done = LineNowAndThen(), 0.0
    with tqdm(total=plan.networks, unit=" networks", dynamic_ncols=True, leave=False, disable=None) as bar:

        def count(networks: float) -> None:
            nonlocal done
            done += networks
            bar.update(networks)
            lines.show(f"{done:.0f}/{plan.networks} networks")

        for number, part in enumerate(plan.parts):
            with work.claim(number) as is_claimed:
                if is_claimed:
                    work.save_part(number, plan.train(part, device, count))
                    continue
                done += len(part)
                if not bar.disable:
                    bar.initial += len(part)
                    bar.n += len(part)


def _write(plan: PartsPlan, work: WorkFolder) -> None:
    """Write the zoo from a work folder in which all parts are finished, and delete that folder."""
    parts = (work.load_part(number) for number in range(len(plan.parts)))
    written = plan.write(parts, work.scratch, work.mark_written)
    print(f"{plan.out}: {written.text}")
    print_reading(written.reading)
    if written.accuracies:
        picture = histogram_path(plan.out)
        save_histogram(
            torch.tensor(written.accuracies), f"{len(written.accuracies)} networks of {plan.out.name}", picture
        )
    work.remove()
