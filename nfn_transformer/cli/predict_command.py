"""Predicting by checked flags of predict.py: predictions of checkpoints, or scores on a labelled zoo."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from nfn_transformer import atomic_files
from nfn_transformer.cli.command_line import find_device
from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.models.registry import load_plugin
from nfn_transformer.printable import printable
from nfn_transformer.resources import limit_threads
from nfn_transformer.training.calibration import CalibratedPredictor, fit_calibration, number_task
from nfn_transformer.training.config import DataConfig, absolute
from nfn_transformer.training.data import load_zoo
from nfn_transformer.training.evaluation import Evaluation
from nfn_transformer.training.fitted_predictor import FittedPredictor
from nfn_transformer.training.folds import predictor_directory
from nfn_transformer.training.number_tasks import NumberTask
from nfn_transformer.training.report import write_predictions
from nfn_transformer.training.results import few_networks
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.task import Task
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.zoo.faults import Fault
from nfn_transformer.zoo.metadata import Columns, Condition
from nfn_transformer.zoo.network_facts import FACTS
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo
from nfn_transformer.zoo.sources import find_zoo
from nfn_transformer.zoo.user_table import read_csv
from nfn_transformer.zoo.user_zoo import CALIBRATE, read_few

READING_FLAGS = ("file_column", "epoch_column", "label_column", "run_column", "weights_key", *FACTS)
"""Flags of how a zoo is read; the run's own are the default."""


def predict_by_flags(flags: argparse.Namespace) -> int:
    """Print predictions of the checkpoints, or scores where there are none; return the exit status."""
    limit_threads()
    for path in flags.plugin:
        load_plugin(path)
    run, device = predictor_directory(RunDirectory.open(flags.run)), find_device(flags.device)
    predictor = FittedPredictor(run, device)
    task = predictor.trained.task
    if flags.edited is not None and task.name != "edit":
        raise UserError(f"--edited {flags.edited}: requires a run of --task edit, got {task.name}")
    if flags.edited is not None and flags.edited.exists() and not _is_empty_folder(flags.edited):
        raise UserError(f"--edited {flags.edited}: already exists; choose another path or delete it")
    if not run.results_file.is_file():
        print(f"warning: {flags.run}: the run is not finished; this is its best epoch so far", file=sys.stderr)
    if not flags.checkpoints:
        scores = _score(predictor, flags)
        names, columns, sides = scores.names, scores.columns, scores.sides
    else:
        excluded: list[Fault] = []
        names, groups = predictor.read_checkpoints(flags.checkpoints, flags.n_heads, flags.weights_key, excluded)
        outputs, sides = predictor.outputs_of_checkpoints(groups)
        if flags.calibrate is not None:
            _calibrate(predictor, flags, names, lambda index: outputs[index], None)
            outputs, sides = predictor.outputs_of_checkpoints(groups)
        else:
            known = predictor.seen_networks().by_weights
            if not any(weights in known for group in groups for weights in group.fingerprints):
                _note_on_scale(task)
        columns = task.columns(outputs)
        if flags.edited is not None:
            (group,) = groups  # INRs of one size
            _write_edited(predictor.edit(cast(NetworkWeights, group.weights)), names, flags.edited)
        for name, line, side in zip(names, task.lines(outputs), sides, strict=True):
            print(f"{line}  {printable(name, 4096)}" + (f"  (on the run's {side} side)" if side else ""))
        if excluded:
            empty, errors = [""] * len(excluded), [printable(fault.detail) for fault in excluded]
            columns = {name: [*values, *empty] for name, values in columns.items()} | {
                "error": [""] * len(names) + errors
            }
            names, sides = [*names, *(fault.name for fault in excluded)], [*sides, *empty]
    if flags.out is not None:
        try:
            write_predictions(flags.out, names, columns, sides)
        except OSError as error:
            raise UserError(f"--out {flags.out}: cannot be written ({error.strerror})") from None
        print(f"written to {flags.out}", file=sys.stderr)
    return 0


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _labelled_data(trained_on: DataConfig, flags: argparse.Namespace) -> DataConfig:
    """Return the data to score on, before the flags' condition on its rows: the run's own where no flag differs."""
    if flags.table is not None and flags.data_path is None and trained_on.table is None:
        raise UserError(f"--table {flags.table}: requires --zoo FOLDER, which holds its checkpoints")
    dataset = flags.dataset or trained_on.dataset
    if flags.table is not None and flags.data_path is not None and flags.dataset is None:
        dataset = Path(flags.data_path).resolve().stem
    data_path = flags.data_path or (trained_on.data_path if dataset == trained_on.dataset else None)
    data_path = absolute(find_zoo(dataset, data_path))
    own_table = trained_on.table if data_path == trained_on.data_path else None
    return replace(
        trained_on,
        dataset=dataset,
        data_path=data_path,
        table=own_table if flags.table is None else absolute(flags.table),
        ckpt_epoch=flags.ckpt_epoch or trained_on.ckpt_epoch,
        n_heads=flags.n_heads or trained_on.n_heads,
        allow_faulty=bool(flags.allow_faulty) or trained_on.allow_faulty,
        **{name: getattr(flags, name) or getattr(trained_on, name) for name in READING_FLAGS},
    )


def _load_test_split(
    predictor: FittedPredictor, data: DataConfig, condition: str, required: bool
) -> tuple[Zoo | MixedZoo, Tensor] | None:
    """Return the run's zoo and the members of its test split that meet a condition; None for another zoo.

    Raises:
        RunError: `data` is another zoo although the run's is required, or no member meets the condition.
    """
    trained_on = predictor.config.data
    try:
        zoo = load_zoo(data)
        index = predictor.test_split(zoo)
    except (RunError, ZooError):
        # The run was trained on no side of a zoo that it does not know.
        if required or data == trained_on:
            raise
        return None
    if condition != trained_on.where:
        chosen = set(load_zoo(replace(data, where=condition)).names)
        index = index[[zoo.names[i] in chosen for i in index.tolist()]]
        if not len(index):
            raise RunError(f"{data.data_path}: none of the run's test split is there where {condition}")
    return zoo, index


def _score(predictor: FittedPredictor, flags: argparse.Namespace) -> Evaluation:
    """Print the scores on a labelled zoo, and return them with the predictions."""
    trained_on = predictor.config.data
    data = _labelled_data(trained_on, flags)
    condition = trained_on.where if flags.where is None else Condition.parse(flags.where).text
    test_split = None if flags.split == "all" else _load_test_split(predictor, data, condition, flags.split == "test")
    zoo: Zoo | MixedZoo
    if test_split is None:
        zoo = load_zoo(replace(data, where=condition))
        index, known = torch.arange(len(zoo)), set()
        if flags.calibrate is not None:
            outputs_of = partial(predictor.trained.outputs, zoo)
            known = _calibrate(predictor, flags, zoo.names, outputs_of, Path(data.data_path))
        elif not any(predictor.seen_networks().sides(zoo, index)):
            _note_on_scale(predictor.trained.task)
        index = index[[name not in known for name in zoo.names]]
        if not len(index):
            given = f"--calibrate {flags.calibrate}"
            raise UserError(f"{given}: expected networks beside those in it, got all {len(zoo)} of the zoo")
        scores = predictor.evaluate(zoo, "all" if flags.split == "all" else "unseen", index)
        left = f"{len(known & set(zoo.names))} that it is calibrated to" if known else ""
        left += f"{' and ' if left else ''}{scores.left_out}" if scores.left_out else ""
        scope = f"all of its checkpoints but {left}" if left else "all of its checkpoints"
    else:
        if flags.calibrate is not None:
            raise UserError(f"--calibrate {flags.calibrate}: cannot be combined with the run's own test split")
        zoo, index = test_split
        scores, scope = predictor.evaluate_on(zoo, index, "test"), "the run's own test split"
        scope += ", without its transformed copies" if trained_on.augment else ""
    scope += f", where {condition}" if condition else ""
    if data.table is not None and zoo.report.notes:
        print("\n".join(zoo.report.notes), file=sys.stderr)
    place = printable(f"{data.dataset} ({data.data_path}), {scope}", 4096)
    print(f"{place}: {len(scores.names)} networks{few_networks(len(scores.names))}")
    references = [f"{name.replace('_', ' ')}: {value:.4f}" for name, value in scores.references.items()]
    print("\n".join([scores.metrics.line(scores.interval), *references, *scores.warnings]))
    if flags.edited is not None and isinstance(zoo, Zoo):
        position = {name: index for index, name in enumerate(zoo.names)}
        chosen = zoo.weights(torch.tensor([position[name] for name in scores.names]))
        _write_edited(predictor.edit(cast(NetworkWeights, chosen)), scores.names, flags.edited)
    return scores


def _calibrate(
    predictor: FittedPredictor,
    flags: argparse.Namespace,
    names: Sequence[str],
    outputs_of: Callable[[Tensor], Tensor],
    root: Path | None,
) -> set[str]:
    """Calibrate a predictor to the known networks of --calibrate, say how, and return their names.

    Args:
        predictor: the predictor.
        flags: of the command.
        names: names of the networks to be predicted, of which known ones may be some.
        outputs_of: returns the outputs of networks by their positions among these.
        root: see `read_few`.
    """
    task = number_task(predictor.trained)
    # Columns of the run count where the few networks' table has them; else they are guessed.
    there, of_run = {name.lower() for name in read_csv(flags.calibrate, CALIBRATE)[0]}, predictor.config.data
    file, label = (
        name if name and name.lower() in there else None for name in (of_run.file_column, of_run.label_column)
    )
    columns = Columns(flags.file_column or file, label=flags.label_column or label)
    few, notes = read_few(flags.calibrate, names, columns, task.entry.labels, root)
    position = {name: index for index, name in enumerate(names)}
    inside = [name for name in few if name in position]
    outside = [name for name in few if name not in position]
    outputs = [outputs_of(torch.tensor([position[name] for name in inside]))] if inside else []
    if outside:
        paths, groups = predictor.read_checkpoints(outside, flags.n_heads, flags.weights_key)
        outputs.append(predictor.outputs_of_checkpoints(groups)[0])
        outside = paths
    labels = torch.tensor([few[name] for name in (*inside, *outside)], dtype=torch.float64)
    calibration = fit_calibration(task, torch.cat(outputs), labels)
    predictor.trained = CalibratedPredictor(predictor.trained, calibration)
    print("\n".join([*notes, str(calibration)]), file=sys.stderr)
    return set(few)


def _note_on_scale(task: Task) -> None:
    """Say of predicted numbers of networks that the run does not know that they rank, but are not calibrated."""
    if isinstance(task, NumberTask):
        print(
            "note: the run knows none of these networks: its predictions rank them, but are not calibrated where they "
            "were not trained as the run's zoo was (--calibrate FEW.csv)",
            file=sys.stderr,
        )


def _write_edited(changed: NetworkWeights, names: Sequence[str], folder: Path) -> None:
    """Write changed INRs as state dicts FOLDER/NAME.pt; the folders in a name are joined by underlines.

    Raises:
        UserError: the folder cannot be written, or two names become one.
    """
    stems = [re.sub(r"\.(pt|pth|ckpt|safetensors)$", "", name).lstrip("./").replace("/", "_") for name in names]
    if len(set(stems)) < len(stems):
        first = next(stem for place, stem in enumerate(stems) if stem in stems[:place])
        raise UserError(f"--edited {folder}: expected networks of different names, got several as {first}.pt")
    states = FAMILIES[changed.spec.family].state_dict(changed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, stem in enumerate(stems):
            file = folder / f"{stem}.pt"
            with atomic_files.replacing(file) as temporary:
                torch.save({key: tensor[place].clone() for key, tensor in states.items()}, temporary)
    except OSError as error:
        raise UserError(f"--edited {folder}: cannot be written ({error.strerror})") from None
    print(f"{len(names)} changed INRs written to {folder}", file=sys.stderr)
