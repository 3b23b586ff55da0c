"""Folds: every network of a zoo is predicted by a model that was trained without its run, and all are measured at once.

RUN/fold1, RUN/fold2, ...         ordinary run directories, whose test sides are the folds
RUN/all                           the run on all networks of --fit_all, which predicting by RUN uses
RUN/split.json                    file names of all networks, and of each fold
RUN/out_of_fold_predictions.csv   file name, predicted and true label, and fold of each network
RUN/results.json                  measures over all of them
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pkgutil import resolve_name
from statistics import fmean, median

import torch
from torch import Tensor

from nfn_transformer.errors import RunError, ZooError
from nfn_transformer.printable import quoted
from nfn_transformer.seeding import make_generator
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig
from nfn_transformer.training.data import Split, draw_split, recorded_split, split_record
from nfn_transformer.training.number_tasks import NumberTask
from nfn_transformer.training.report import measure_ceilings, write_predictions
from nfn_transformer.training.results import FINISHED
from nfn_transformer.training.run_directory import RunDirectory, read_json, write_json
from nfn_transformer.training.task import Task
from nfn_transformer.training.tasks import TASKS
from nfn_transformer.training.trained_predictor import load_trained
from nfn_transformer.training.trees import tree_task
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.runs import describe_networks
from nfn_transformer.zoo.several_sizes import MixedZoo

FOLD_VALIDATION_SHARE = 0.2
"""Share of the other runs that a fold's model chooses its epoch by."""


def split_of_fold(zoo: Zoo | MixedZoo, kept: Tensor, config: DataConfig, seed: int) -> Split:
    """Return the split of a fold: its test side is the fold, and validation and training sides share the others.

    Runs are drawn by the seed into folds whose numbers of runs differ by at most one. Runs that share a network of
    equal weights count as one. The split of fold 0 trains on all networks and has no other side.

    Args:
        zoo: the networks.
        kept: indices [m] of those that count, ascending.
        config: whose `folds` and `fold` are read.
        seed: of the draws.

    Raises:
        ZooError: there are too few runs.
    """
    assert config.folds is not None
    runs = _joined_runs(zoo, kept)
    distinct = sorted(set(runs))
    if len(distinct) < max(config.folds, 4):
        raise ZooError(
            f"--folds {config.folds}: expected networks of at least {max(config.folds, 4)} runs, got {len(kept)} of "
            f"{len(distinct)}"
        )
    if not config.fold:
        none = kept[:0]
        return Split(kept, none, none)
    order = torch.randperm(len(distinct), generator=make_generator(seed, "folds")).tolist()
    fold_of = {distinct[run]: rank % config.folds + 1 for rank, run in enumerate(order)}
    others = [run for run in distinct if fold_of[run] != config.fold]
    shuffled = torch.randperm(len(others), generator=make_generator(seed, "folds", "validation", config.fold))
    chosen = {others[place] for place in shuffled[: max(1, round(FOLD_VALIDATION_SHARE * len(others)))].tolist()}
    sides = torch.tensor([2 if fold_of[run] == config.fold else int(run in chosen) for run in runs])
    return Split(*(kept[sides == side] for side in range(3)))


def _joined_runs(zoo: Zoo | MixedZoo, kept: Tensor) -> list[str]:
    """Return the run of each network, one for all runs that share a network of equal weights."""
    root: dict[str, str] = {}

    def find(run: str) -> str:
        while root.setdefault(run, run) != run:
            run = root[run]
        return run

    first: dict[str, str] = {}
    described = describe_networks(zoo, kept)
    for run, _, weights in described:
        low, high = sorted((find(run), find(first.setdefault(weights, run))))
        root[high] = low
    return [find(run) for run, _, _ in described]


def folds_record(zoo: Zoo | MixedZoo, config: RunConfig) -> dict:
    """Return the content of a run's split.json: that of a training on all networks, and file names fold by fold.

    Raises:
        ZooError: there are too few runs.
    """
    data = config.data
    record = split_record(zoo, draw_split(zoo, replace(data, fold=0), config.seed))
    splits = [draw_split(zoo, replace(data, fold=fold), config.seed) for fold in fold_numbers(config)]
    return {**record, "folds": [[zoo.names[i] for i in split.test.tolist()] for split in splits]}


def fold_numbers(config: RunConfig) -> range:
    """Return the numbers of a run's folds."""
    return range(1, (config.data.folds or 0) + 1)


def fold_directory(top: RunDirectory, fold: int) -> RunDirectory:
    """Return the run directory of a fold, or of the training on all networks for 0."""
    return RunDirectory(top.path / (f"fold{fold}" if fold else "all"))


def config_of_fold(config: RunConfig, fold: int) -> RunConfig:
    """Return the configuration of the run of a fold."""
    return replace(config, data=replace(config.data, fold=fold), fit_all=False, ceiling_images="", ceiling_skip=0)


def config_of_all(config: RunConfig, results: dict) -> RunConfig:
    """Return the configuration of the training on all networks, which ends at the epoch that the folds chose."""
    last, config = results[f"best_{_unit(config)}"], config_of_fold(config, 0)
    if isinstance(config.training, TrainingConfig):
        return replace(config, training=replace(config.training, stop_epoch=last, early_stopping=None))
    return replace(config, training=replace(config.training, rounds=last, early_stopping=None))


def _unit(config: RunConfig) -> str:
    return "epoch" if config.model == NETWORK else "round"


def measure_folds(top: RunDirectory, config: RunConfig, zoo: Zoo | MixedZoo, device: torch.device) -> dict:
    """Predict every network by the model of its fold, write predictions and results, and return the results.

    Raises:
        RunError: a fold is not finished, or the zoo has changed.
    """
    index = draw_split(zoo, replace(config.data, fold=0), config.seed).train
    task, unit = _task_of_all(config, zoo), _unit(config)
    fold_of, parts, places = torch.zeros(len(zoo), dtype=torch.int64), [], []
    results_of_folds = []
    for fold in fold_numbers(config):
        directory = fold_directory(top, fold)
        if not directory.results_file.is_file():
            raise RunError(f"{directory.path}: stopped before any {unit} was finished; a lower --lr may help")
        results_of_folds.append(read_json(directory.results_file))
        test = recorded_split(zoo, read_json(directory.split_file), directory.split_file).test
        parts.append(_outputs_of_fold(directory, task, zoo, test, device))
        places.append(test)
        fold_of[test] = fold
    order = torch.cat(places).argsort()
    if not torch.equal(torch.cat(places)[order], index):
        raise RunError(f"{top.split_file}: the folds are not those of its networks")
    outputs, labels = torch.cat(parts)[order], task.labels_of(zoo)[index].cpu()
    names, runs = [zoo.names[i] for i in index.tolist()], [zoo.runs[i] for i in index.tolist()]
    columns = {**task.columns(outputs, labels), "fold": fold_of[index].tolist()}
    write_predictions(top.out_of_fold_file, names, columns)
    results = _results(config, task, outputs, labels, runs, results_of_folds)
    results["test_references"] |= measure_ceilings(config, zoo, index)
    write_json(top.results_file, results)
    score = task.entry.score
    task.draw(top.path, outputs, labels, f"out of fold: {score.name} {results['test'][score.key]:.3f}, {len(index)}")
    return results


def _outputs_of_fold(
    directory: RunDirectory, task: Task, zoo: Zoo | MixedZoo, test: Tensor, device: torch.device
) -> Tensor:
    """Return the outputs [n, ...] of a fold's networks `test` [n] as outputs of a common task.

    Predicted numbers are read from the fold's own file, as featurizing large networks once more takes long.

    Raises:
        RunError: its predictions are damaged.
    """
    if not isinstance(task, NumberTask):
        trained = load_trained(directory, device)
        return task.outputs_of(trained.outputs(zoo, test), trained.task)
    path = directory.predictions_file
    try:
        with open(path, newline="", encoding="utf-8") as file:
            predicted = {row["file"]: float(row["predicted"]) for row in csv.DictReader(file)}
        numbers = [predicted[zoo.names[i]] for i in test.tolist()]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{path}: is not the predictions of its fold: {error!r}") from None
    return task.outputs_of_predictions(torch.tensor(numbers, dtype=torch.float64))


def _results(
    config: RunConfig, task: Task, outputs: Tensor, labels: Tensor, runs: Sequence[str], folds: Sequence[dict]
) -> dict:
    """Return the content of results.json, with the keys of an ordinary run's.

    `best_epoch` is the median of the folds' best ones, rounded; `validation` has the means over the folds.
    """
    score, unit = task.entry.score, _unit(config)
    best = [each[f"best_{unit}"] for each in folds]
    validation = {
        name: fmean(each["validation"][name] for each in folds)
        for name in folds[0]["validation"]
        if all(each["validation"][name] is not None for each in folds)
    }
    counts = {side: round(fmean(each["networks"][side] for each in folds)) for side in ("train", "validation")}
    return {
        "status": next((each["status"] for each in folds if each["status"] != FINISHED), FINISHED),
        **({} if task.name == "accuracy" else {"task": task.name}),
        "folds": len(folds),
        f"best_{unit}": max(1, math.floor(median(best) + 0.5)),
        f"best_{unit}s": best,
        f"{unit}s": max(each[f"{unit}s"] for each in folds),
        "networks": {**counts, "test": len(labels)},
        "validation": {name: validation.get(name) for name in folds[0]["validation"]},
        "test": asdict(task.measure(outputs, labels)),
        f"test_{score.key}_interval": asdict(task.interval(outputs, labels, runs, config.seed)),
        f"test_{score.key}_of_folds": [each["test"][score.key] for each in folds],
        "test_references": task.references(labels, labels),
    }


def _task_of_all(config: RunConfig, zoo: Zoo | MixedZoo) -> Task:
    """Return the task whose outputs all folds' are brought to."""
    if config.model != NETWORK:
        return tree_task(config.data.task, zoo.classes)
    entry = TASKS[config.data.task]
    split = draw_split(zoo, replace(config.data, fold=0), config.seed)
    facts = {} if entry.fit is None else resolve_name(entry.fit)(zoo, split, config.data)
    return resolve_name(entry.build)(**facts)


def finish_all(top: RunDirectory, unit: str, networks: int) -> None:
    """Write the results of the training on all networks: those of the folds, as no network is left to test on."""
    results = read_json(top.results_file)
    directory, last = fold_directory(top, 0), results[f"best_{unit}"]
    counts = {**results["networks"], "train": networks, "validation": 0}
    write_json(directory.results_file, {**results, f"{unit}s": last, "networks": counts})
    directory.state_file.unlink(missing_ok=True)


def predictor_directory(directory: RunDirectory) -> RunDirectory:
    """Return the directory of the predictor of a run: of one of folds that of all networks.

    Raises:
        RunError: a run of folds has no predictor of all networks.
    """
    if fold_directory(directory, 0).config_file.is_file():
        return fold_directory(directory, 0)
    if not fold_directory(directory, 1).config_file.is_file():
        return directory
    raise RunError(
        f"{directory.path}: has predictors of its folds alone, as {quoted('fold1')}; training with --resume "
        f"{directory.path} --fit_all adds one of all networks"
    )
