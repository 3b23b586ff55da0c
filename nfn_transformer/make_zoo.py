"""Make a zoo: train populations of small transformers and write them in the release's layout.

    python nfn_transformer/make_zoo.py --out data/my_zoo.zip --runs 200
    python nfn_transformer/make_zoo.py --out data/mails.zip --dataset mails --texts mails/ --runs 100

The same command goes on where an interrupted one has stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nfn_transformer.atomic_files import write_text
from nfn_transformer.bundled import RECIPES, find_bundled
from nfn_transformer.cli.command_line import (
    EXIT_INTERRUPTED,
    Parser,
    add_boolean,
    check_device_name,
    find_device,
    positive_int,
    run_command,
    seed_number,
)
from nfn_transformer.errors import UserError
from nfn_transformer.generation.estimate import estimate, population_size
from nfn_transformer.generation.histogram import save_histogram
from nfn_transformer.generation.recipe import Recipe, read_recipe
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.task_flags import add_task_flags, task_data
from nfn_transformer.generation.training_plan import BEST, PERCENT, SNAPSHOT_UNITS
from nfn_transformer.generation.work_folder import WorkFolder
from nfn_transformer.generation.workers import run_workers, wait_for_others
from nfn_transformer.generation.zoo_maker import ZooSummary, open_work_folder, train_share, write_zoo
from nfn_transformer.generation.zoo_plan import ZooPlan, runs_table
from nfn_transformer.launch.flags import add_launcher_flags, build_launcher, launcher_parameters

AUTO = "auto"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = Parser(
        "make_zoo.py",
        "Train populations of small transformers, many networks at once, and write them as a zoo. "
        "The same command goes on where an interrupted one has stopped.",
        (
            "python nfn_transformer/make_zoo.py --out data/small.zip --runs 200",
            "python nfn_transformer/make_zoo.py --out data/shapes.zip --recipe shapes.yaml --seed 3",
        ),
    )
    _add_zoo_flags(parser.add_argument_group("the zoo"))
    add_task_flags(parser.add_argument_group("images or texts"))
    _add_network_flags(parser.add_argument_group("the networks"))
    group = parser.add_argument_group("where it runs")
    group.add_argument(
        "--population",
        type=_population,
        default=AUTO,
        help="networks trained at once; auto: as many as half of the device's free memory holds, on a CPU at most 64",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add_launcher_flags(group, "processes that train, each its share of the populations,", "one for each population")
    group.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # file that a worker writes in the end
    return parser


def _add_zoo_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--out", type=Path, required=True, help="where it goes: a new folder, or a zip if it ends so")
    group.add_argument("--dataset", default="digits", help="its name: metadata/NAME.csv and NAME/*.pt")
    group.add_argument("--runs", type=positive_int, default=1600, help="networks to train, with drawn hyperparameters")
    group.add_argument(
        "--recipe",
        type=Path,
        help="file with the values that runs draw or combine, or the name of a bundled one (shapes.yaml)",
    )
    group.add_argument("--seed", type=seed_number, default=1, help="what all random choices depend on")
    group.add_argument(
        "--snapshots",
        default="75",
        help="checkpoints of a run: numbers in --snapshot_unit, and best (after the epoch with the highest test "
        "accuracy, as in the released zoo); training ends at the last of them",
    )
    group.add_argument(
        "--snapshot_unit",
        choices=SNAPSHOT_UNITS,
        default=PERCENT,
        help="percent of a run's training, where 1 is its first epoch, or epochs; a run has none beyond its own end",
    )
    add_boolean(group, "--half", False, "store weights in half precision; accuracies are those of the stored weights")
    add_boolean(group, "--dry_run", False, "list the runs and estimate time and size, but train nothing")


def _add_network_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--embed_dim", type=positive_int, default=16, help="width D of the tokens")
    group.add_argument("--n_attention_heads", type=positive_int, default=2, help="heads of each block; they divide D")
    group.add_argument("--n_layers", type=positive_int, default=2, help="encoder blocks")
    group.add_argument("--hidden", type=positive_int, default=32, help="hidden width D_A of each block's MLP")
    group.add_argument("--patch", type=positive_int, default=2, help="patch size; it divides the image's sides")
    group.add_argument("--epochs", type=positive_int, default=48, help="length of a training, up to the last snapshot")
    group.add_argument("--batch_size", type=positive_int, default=32, help="images or texts in a batch of each network")


def _population(text: str) -> int | str:
    return text if text == AUTO else positive_int(text)


def _recipe(options: argparse.Namespace) -> Recipe:
    defaults = {"runs": options.runs, "hidden": options.hidden, "epochs": (options.epochs,)}
    defaults |= {name: (getattr(options, name),) for name in ("embed_dim", "n_attention_heads", "n_layers")}
    path = options.recipe
    return Recipe(**defaults) if path is None else read_recipe(find_bundled(path, RECIPES), defaults)


def _snapshots(text: str, unit: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    top = 100 if unit == PERCENT else None
    for name in names:
        is_number = name.isascii() and name.isdigit() and not name.startswith("0")
        if name != BEST and not (is_number and (top is None or int(name) <= top)):
            range_ = "from 1 to 100" if top else "of at least 1"
            raise UserError(f"--snapshots {text}: expected whole numbers {range_} ({unit}) or {BEST}, got '{name}'")
    return names


def _plan(options: argparse.Namespace, data: TaskData) -> ZooPlan:
    name = options.dataset
    if name in ("", ".", "..", "metadata") or any(character in name for character in "/\\"):
        raise UserError(f"--dataset '{name}': expected the name of a folder beside metadata/")
    if not options.out.parent.is_dir():
        raise UserError(f"--out {options.out}: no folder {options.out.parent}")
    plan = ZooPlan(
        out=options.out,
        dataset=name,
        runs=_recipe(options).draw(options.seed),
        population=1 if options.population == AUTO else options.population,
        patch=options.patch,
        seed=options.seed,
        batch_size=options.batch_size,
        crop_padding=options.crop_padding,
        snapshots=_snapshots(options.snapshots, options.snapshot_unit),
        snapshot_unit=options.snapshot_unit,
        half=options.half,
    )
    for run in plan.runs:
        plan.training(run, data)
    return plan if options.population != AUTO else replace(plan, population=_population_size(plan, data, options))


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


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(out.name.removesuffix(".zip") + ending)


def _report(summary: ZooSummary, plan: ZooPlan) -> None:
    if summary.diverged:
        path = _beside(plan.out, "_diverged.csv")
        runs, epochs = [one.run for one in summary.diverged], [one.epoch for one in summary.diverged]
        write_text(path, runs_table(runs, epochs))
        print(f"{len(summary.diverged)} runs have diverged, and are left out from then on: {path}")
    if summary.overflows:
        print(f"{summary.overflows} checkpoints are not finite in half precision, and are left out")
    if not len(summary.accuracies):
        print(f"{plan.out}: no network is left")
        return
    picture = _beside(plan.out, "_accuracies.png")
    save_histogram(summary.accuracies, f"{len(summary.accuracies)} networks of {plan.out.name}", picture)
    low, median, high = (summary.accuracies.quantile(q).item() for q in (0, 0.5, 1))
    print(
        f"{plan.out}: {len(summary.accuracies)} checkpoints of {len(plan.runs)} runs, "
        f"accuracy {low:.4f} to {high:.4f}, median {median:.4f}; histogram in {picture}"
    )


def _jobs(plan: ZooPlan, options: argparse.Namespace) -> int:
    """Return the number of processes that train at once."""
    return options.jobs or (len(plan.populations()) if options.launcher == "slurm" else 1)


def _make(plan: ZooPlan, data: TaskData, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Train what is left, in this process or in workers, and write the zoo."""
    jobs, total = _jobs(plan, options), len(plan.populations())
    with open_work_folder(plan, data) as work:
        if jobs == 1 and options.launcher == "processes":
            train_share(plan, data, find_device(options.device), work)
        elif left := work.unfinished(total):
            launcher = build_launcher(options, work.path / "submitit")
            argv = [str(Path(__file__).resolve()), *arguments, "--population", str(plan.population)]
            run_workers(argv, min(jobs, len(left)), launcher, work, total)
        wait_for_others(work, total)
        if left := work.unfinished(total):
            raise UserError(
                f"{work.path}: {len(left)} populations are not finished; the same command goes on from there"
            )
        write_zoo(plan, data, work, lambda summary: _report(summary, plan))


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 0 once the zoo is written, 130 if interrupted."""
    options = build_parser().parse_args(arguments)
    launcher_parameters(options)
    check_device_name(options.device)
    if options.launcher != "slurm" or options.worker is not None:
        find_device(options.device)
    data = task_data(options)
    plan = _plan(options, data)
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
        if plan.out.exists():
            work = WorkFolder(plan.out)
            if work.is_written(plan.configuration(data)):
                work.remove()
                print(f"{plan.out}: is finished")
                return 0
            raise UserError(f"--out {plan.out}: already exists; choose another path or delete it")
        _announce(plan, data, options)
        _make(plan, data, options, arguments)
    except KeyboardInterrupt:
        print("interrupted; finished networks are kept, and the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    run_command(main)
