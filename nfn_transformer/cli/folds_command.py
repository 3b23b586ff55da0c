"""Runs of folds by a training command's flags: begun or resumed, measured, and followed by one on all networks."""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from nfn_transformer.cli.command_line import EXIT_FAILURE, find_device, started_as
from nfn_transformer.cli.flags import TrainingCommand
from nfn_transformer.cli.training_command import evaluate_run, train_and_test
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training.config import RunConfig, checkout_commit
from nfn_transformer.training.data import load_zoo
from nfn_transformer.training.distributed import SINGLE_PROCESS
from nfn_transformer.training.folds import (
    config_of_all,
    config_of_fold,
    finish_all,
    fold_directory,
    fold_numbers,
    folds_record,
    measure_folds,
)
from nfn_transformer.training.report import read_summary
from nfn_transformer.training.results import FINISHED
from nfn_transformer.training.run import (
    ResumeOverrides,
    Run,
    begin_runs,
    check_predictor,
    restore_threads,
    resume_runs,
)
from nfn_transformer.training.run_directory import RunDirectory, check_free, read_json, write_json
from nfn_transformer.training.trees import TreeRun
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo


def begin_folds(command: TrainingCommand, flags: argparse.Namespace, config: RunConfig) -> int:
    """Train a predictor for each fold, measure them, and train on all networks where wanted; return the exit status.

    Raises:
        UserError: anything in the configuration, the zoo or the directories is not as it must be.
    """
    if flags.out_dir is not None:
        check_free(flags.out_dir)
    zoo = load_zoo(config.data, flags.load_cache, flags.n_workers)
    if isinstance(config.predictor, ModelConfig) and not isinstance(zoo.spec, TransformerSpec):
        config = replace(config, predictor=config.predictor.without_parts())
    check_predictor(config, zoo)
    record, described = folds_record(zoo, config), replace(config, commit=checkout_commit())
    top = RunDirectory.create(flags.out_dir, described, zoo.spec, record, zoo.report.csv())
    top.lock()
    try:
        return _train(command, flags, top, config, zoo, ResumeOverrides())
    except UserError:
        if not any(fold_directory(top, fold).path.exists() for fold in fold_numbers(config)):
            shutil.rmtree(top.path)  # it holds nothing but its own description yet
        raise
    finally:
        top.release()


def resume_folds(command: TrainingCommand, flags: argparse.Namespace, given: dict[str, Any], top: RunDirectory) -> int:
    """Go on with a run of folds: with those that are unfinished or not begun, then with all; return the exit status.

    Raises:
        UserError: the run is damaged, or its zoo is gone or has changed.
    """
    config, spec = top.read_config()
    overrides = ResumeOverrides(
        device=str(find_device(flags.device)) if "device" in given else None,
        data_path=flags.data_path,
        table=flags.table,
        ceiling_images=flags.ceiling_images,
        ceiling_skip=flags.ceiling_skip,
        compile=given.get("compile"),
        cuda_graphs=given.get("cuda_graphs"),
    )
    top.lock()
    try:
        if given.get("fit_all") and not config.fit_all:
            config = replace(config, fit_all=True)
            write_json(top.config_file, {**read_json(top.config_file), **config.to_json()})
        for leftover in top.path.glob(".*.part"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if top.results_file.is_file():  # the ceiling is measured, and its images may be gone
            config = replace(config, ceiling_images="", ceiling_skip=0)
        config = overrides.apply(config)
        restore_threads(config, SINGLE_PROCESS)
        zoo = load_zoo(config.data, flags.load_cache, flags.n_workers)
        if zoo.spec != spec or folds_record(zoo, config)["folds"] != read_json(top.split_file).get("folds"):
            raise RunError(f"{config.data.data_path}: the zoo is not the one that the run began with")
        check_predictor(config, zoo)
        of_folds = replace(overrides, ceiling_images=None, ceiling_skip=None)  # the run of all folds has the ceiling
        return _train(command, flags, top, config, zoo, of_folds)
    finally:
        top.release()


def _train(
    command: TrainingCommand,
    flags: argparse.Namespace,
    top: RunDirectory,
    config: RunConfig,
    zoo: Zoo | MixedZoo,
    overrides: ResumeOverrides,
) -> int:
    """Train what is left of the folds and measure them, then of the training on all; return the exit status."""
    configs = {fold: config_of_fold(config, fold) for fold in fold_numbers(config)}
    device = torch.device(config.device)

    def test_folds(runs: Sequence[Run | TreeRun]) -> int:
        status = max((evaluate_run(run, print_results=False) for run in runs), default=0)
        if status == EXIT_FAILURE:
            return status
        measure_folds(top, config, zoo, device)
        text, stopped = read_summary(top)
        print(text, flush=True)
        return 0 if stopped == FINISHED else EXIT_FAILURE

    def test_all(runs: Sequence[Run | TreeRun]) -> int:
        (run,) = runs
        finish_all(top, run.history.unit, len(run.data.split.train))
        count, last = len(run.data.split.train), len(run.history.records)
        trained = _counted(last, run.history.unit)
        print(f"predictor of all {count} networks, trained for {trained}: {run.directory.path}")
        return 0

    status = 0
    if not top.results_file.is_file():
        runs = _runs(top, configs, flags, zoo, overrides)
        status = train_and_test(command, runs, flags, SINGLE_PROCESS, test_folds, top) if runs else test_folds(runs)
    elif not config.fit_all:
        print(f"this run is finished\n{read_summary(top)[0]}")
    if status == 0 and config.fit_all and not fold_directory(top, 0).is_finished:
        results = read_json(top.results_file)
        runs = _runs(top, {0: config_of_all(config, results)}, flags, zoo, overrides)
        unit = runs[0].history.unit
        best = ", ".join(map(str, results[f"best_{unit}s"]))
        print(
            f"training on all networks for {_counted(results[f'best_{unit}'], unit)}, the median of the folds' best "
            f"({best}); nothing is left to validate on: measures below are of the training networks"
        )
        status = train_and_test(command, runs, flags, SINGLE_PROCESS, test_all, top)
    if status == 0:
        program = started_as(command.program).replace(command.program, "predict.py")
        program = "nfn-transformer predict" if program.startswith("nfn-transformer ") else program
        hint = f"; predict by: {program} --run {top.path}" if config.fit_all else ""
        print(f"run directory: {top.path}{hint}")
    return status


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'s' * (count != 1)}"


def _runs(
    top: RunDirectory,
    configs: dict[int, RunConfig],
    flags: argparse.Namespace,
    zoo: Zoo | MixedZoo,
    overrides: ResumeOverrides,
) -> list[Run | TreeRun]:
    """Return the runs of these configurations that are not finished, new or resumed, in order."""
    directories = {fold: fold_directory(top, fold) for fold in configs}
    new = [fold for fold in configs if not directories[fold].config_file.is_file()]
    begun = [fold for fold in configs if fold not in new and not directories[fold].is_finished]
    paths = {fold: directory.path for fold, directory in directories.items()}
    runs: dict[int, Run | TreeRun] = {}
    if new:
        started = begin_runs([configs[fold] for fold in new], [paths[fold] for fold in new], zoo=zoo)
        runs |= dict(zip(new, started, strict=True))
    if begun:
        resumed = resume_runs([paths[fold] for fold in begun], overrides, zoo=zoo)
        runs |= dict(zip(begun, resumed, strict=True))
    return [runs[fold] for fold in sorted(runs)]
