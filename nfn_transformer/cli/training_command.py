"""From a training command's flags, once they are checked, to a trained and tested predictor in its run directory."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nfn_transformer.cli.command_line import EXIT_FAILURE, EXIT_INTERRUPTED, find_device, started_as
from nfn_transformer.cli.flags import TrainingCommand
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.training.config import RunConfig, TrainingConfig
from nfn_transformer.training.distributed import Distributed
from nfn_transformer.training.loop import train
from nfn_transformer.training.report import evaluate_best, measure_ceilings, read_summary
from nfn_transformer.training.results import FINISHED
from nfn_transformer.training.run import ResumeOverrides, Run, begin_runs, resume_runs
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.tracking import ScreenTracker, WandbTracker
from nfn_transformer.training.trained_predictor import load_trained
from nfn_transformer.training.trees import TreeRun
from nfn_transformer.trees.features import TREE_FEATURES


def train_by_flags(
    command: TrainingCommand, flags: argparse.Namespace, given: dict[str, Any], config: RunConfig | None
) -> int:
    """Train what flags describe, or go on; test once; report. Return the exit status.

    Args:
        command: that has the flags.
        flags: all of them.
        given: those on the command line alone, name -> value.
        config: of a new run; None where runs are resumed.

    Raises:
        UserError: the processes that torchrun started cannot share the training.
    """
    distributed = Distributed.from_environment()
    if distributed.count > 1 and given.get("cuda_graphs"):
        raise UserError("--cuda_graphs True: torchrun started several processes; CUDA graphs need one alone")
    several = flags.folds or len(flags.resume or flags.seeds or [flags.seed]) > 1
    if distributed.count > 1 and (several or not command.shares_a_run):
        trained = "several runs at once" if command.shares_a_run else f"what {command.program} trains"
        raise UserError(
            f"torchrun shares one network's training among processes, not {trained}; start it by python "
            f"(WORLD_SIZE is {distributed.count})"
        )
    if config is not None:
        if flags.dataset is None and flags.data_path is None and distributed.is_main:
            print(f"the zoo that comes with the package, data set {config.data.dataset}: {config.data.data_path}")
        if flags.folds is not None:
            from nfn_transformer.cli.folds_command import begin_folds

            return begin_folds(command, flags, config)
        with distributed.joined(config.device) as device:
            configs = [replace(config, seed=seed, device=device) for seed in flags.seeds or [flags.seed]]
            out_dirs = [flags.out_dir]
            if flags.seeds is not None:
                out_dirs = [flags.out_dir and flags.out_dir / f"seed{seed}" for seed in flags.seeds]
            runs = begin_runs(configs, out_dirs, flags.load_cache, flags.n_workers, distributed)
            return train_and_test(command, runs, flags, distributed)
    return _resume(command, flags, given, distributed)


def _resume(
    command: TrainingCommand, flags: argparse.Namespace, given: dict[str, Any], distributed: Distributed
) -> int:
    """Go on with the runs of --resume, report those that are finished, and return the exit status.

    Raises:
        UserError: a run cannot go on.
    """
    statuses: list[int] = []
    unfinished: list[Path] = []
    for directory in map(RunDirectory.open, flags.resume):
        data = directory.read_config()[0].data
        if directory.is_finished and flags.ceiling_images is not None and distributed.is_main:
            unread = f"--ceiling_images {flags.ceiling_images}"
            print(f"warning: {unread}: {directory.path} is tested already", file=sys.stderr)
        if data.folds is not None and data.fold is None and len(flags.resume) == 1 and distributed.count == 1:
            from nfn_transformer.cli.folds_command import resume_folds

            return resume_folds(command, flags, given, directory)
        if data.folds is not None and not data.fold:
            path = directory.path if data.fold is None else directory.path.parent
            raise RunError(f"--resume {directory.path}: resume the run of its folds by itself, --resume {path}")
        if given.get("fit_all"):
            raise RunError(f"--fit_all: requires a run of --folds, got {directory.path}")
        if directory.is_finished:
            print("this run is finished")
            statuses.append(_report_results(directory))
        else:
            unfinished.append(directory.path)
    if unfinished:
        recorded, _ = RunDirectory.open(unfinished[0]).read_config()
        own_device = "device" not in given and distributed.count == 1
        with distributed.joined(str(find_device(flags.device)) if "device" in given else recorded.device) as device:
            overrides = ResumeOverrides(
                device=None if own_device else device,
                data_path=flags.data_path,
                table=flags.table,
                ceiling_images=flags.ceiling_images,
                ceiling_skip=flags.ceiling_skip,
                compile=given.get("compile"),
                cuda_graphs=given.get("cuda_graphs"),
            )
            runs = resume_runs(unfinished, overrides, flags.load_cache, flags.n_workers, distributed)
            statuses.append(train_and_test(command, runs, flags, distributed))
    return max(statuses)


def train_and_test(
    command: TrainingCommand,
    runs: Sequence[Run | TreeRun],
    flags: argparse.Namespace,
    distributed: Distributed,
    test: Callable[[Sequence[Run | TreeRun]], int] = lambda runs: max(map(evaluate_run, runs)),
    whole: RunDirectory | None = None,
) -> int:
    """Train runs, test them and report; return the exit status, EXIT_INTERRUPTED for an interrupted training.

    Args:
        command: the command.
        runs: they train at once.
        flags: of the command.
        distributed: see `Distributed`.
        test: tests the trained runs and returns the exit status; by default each by itself.
        whole: directory of a run of folds, of which these are.
    """
    paths = [run.directory.path for run in runs] if whole is None else [whole.path]
    status = EXIT_FAILURE
    try:
        if distributed.is_main:
            first = runs[0]
            told = runs if first.config.data.fold != 0 else ()  # folds have told it before a training on all
            print("".join(f"{run.data.zoo.report.summary()}\n" for run in told[:1]), end="")
            for run in told:
                split, data = run.data.split, run.config.data
                sides = f"{len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test"
                source = f"{Path(data.split).name} ({data.split_checksum})" if data.split else f"seed {run.config.seed}"
                source += f", tested where {data.test_where}" if data.test_where else ""
                source += f", fold {data.fold} of {data.folds}" if data.fold else ""
                print(f"split by {source}: {sides}")
            if (data := first.config.data).augment:
                print(f"each side is {data.augment_factor} times its size, by transformed copies of its own networks")
            print(f"model: {first.describe()}; device {first.config.device}")
            print("\n".join(f"run directory: {path}" for path in paths), flush=True)
            open_trackers(runs, flags)
        networks = [run for run in runs if isinstance(run, Run)]
        if networks:
            if networks[0].model.is_slow_to_featurize and distributed.is_main and not sys.stderr.isatty():
                print("reading what the encoder needs of every network; this takes a while", flush=True)
            train(networks, distributed, flags.stream, flags.n_workers)
        for run in runs:
            if isinstance(run, TreeRun):
                if TREE_FEATURES[run.config.predictor.features].has_consensus and not sys.stderr.isatty():
                    print("asking the training side's networks for their consensus; this takes minutes", flush=True)
                run.train()
        status = test(runs) if distributed.is_main else 0
    except (KeyboardInterrupt, OSError) as error:  # OSError: a full disk, a closed pipe
        is_interrupt = isinstance(error, KeyboardInterrupt)
        if distributed.is_main:
            resume = f"{started_as(command.program)} --resume {' '.join(map(str, paths))}"
            what = "interrupted" if is_interrupt else f"error: {error}"
            print(f"\n{what}; go on by: {resume}", file=sys.stderr)
        status = EXIT_INTERRUPTED if is_interrupt else EXIT_FAILURE
    finally:
        for run in runs:
            run.directory.release()
            for tracker in run.trackers:
                tracker.finish(status)
    return status


def open_trackers(runs: Sequence[Run | TreeRun], flags: argparse.Namespace) -> None:
    """Give each run its trackers: the screen, and Weights & Biases where --wandb or a sweep's agent wants it."""
    for run in runs:
        training = run.config.training
        total = training.epochs if isinstance(training, TrainingConfig) else training.rounds
        fold = run.config.data.fold
        which = f"seed {run.config.seed}  " if fold is None else f"fold {fold}  " if fold else "all  "
        run.trackers.append(ScreenTracker(total, which if len(runs) > 1 or fold is not None else ""))
    if not ("WANDB_SWEEP_ID" in os.environ if flags.wandb is None else flags.wandb):
        return
    for run in runs:
        folder, config = run.directory.path, run.config.to_json()
        try:
            run.trackers.append(WandbTracker(flags.project, flags.entity, config, folder, len(runs) > 1))
        except UserError:
            if flags.resume is None:
                for begun in runs:
                    shutil.rmtree(begun.directory.path)  # they hold nothing but their own description yet
            raise


def evaluate_run(run: Run | TreeRun, print_results: bool = True) -> int:
    """Test a trained run once and print its results; return its exit status."""
    directory, history, best = run.directory, run.history, run.history.best
    if best is None:
        print(f"stopped: {history.diverged}; no epoch was finished ({directory.path})", file=sys.stderr)
        return EXIT_FAILURE
    predictor = load_trained(directory, torch.device(run.config.device))
    ceilings = measure_ceilings(run.config, run.data.zoo, run.data.split.test)
    test = evaluate_best(run.data, history, predictor, directory, run.config.seed, ceilings)
    validation = {f"best_validation_{name}": value for name, value in asdict(best.validation).items()}
    for tracker in run.trackers:
        tracker.summarize({**validation, **{f"test_{name}": value for name, value in asdict(test).items()}})
    return _report_results(directory) if print_results else 0


def _report_results(directory: RunDirectory) -> int:
    """Print a finished run's results; return exit status 0 where its training was not stopped."""
    text, status = read_summary(directory)
    print(f"{text}\nrun directory: {directory.path}")
    if status == FINISHED:
        return 0
    print(f"stopped: {status}", file=sys.stderr)
    return EXIT_FAILURE
