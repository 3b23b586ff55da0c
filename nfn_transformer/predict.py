"""Predict the accuracy of transformers from their weights by a trained predictor, or score it on a labelled zoo.

python nfn_transformer/predict.py --run RUN CHECKPOINT [CHECKPOINT ...]
python nfn_transformer/predict.py --run RUN --dataset mnist --data_path data/mnist_transformer
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.cli.arguments import add_boolean, find_device, positive_int
from nfn_transformer.cli.program import run_command
from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.training.bootstrap import tau_interval
from nfn_transformer.training.config import DataConfig, absolute
from nfn_transformer.training.data import load_zoo, recorded_split
from nfn_transformer.training.final_report import metrics_line
from nfn_transformer.training.learners import load_trained
from nfn_transformer.training.predictions import write_predictions
from nfn_transformer.training.run_directory import RunDirectory, read_json
from nfn_transformer.training.trained_predictor import TrainedPredictor
from nfn_transformer.zoo.faults import printable
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.metadata import Condition
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.sources import find_zoo

_ZOO_FLAGS = ("dataset", "data_path", "ckpt_epoch", "split", "allow_faulty", "where")


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description="Predict the accuracy of transformers from their weights by a trained predictor: of checkpoints, "
        "or, with --dataset and --data_path, of a labelled zoo, which also scores the predictor.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoints", nargs="*", type=Path, help="checkpoint files, folders or zips of them")
    parser.add_argument("--run", type=Path, required=True, help="run directory of a trained predictor")
    parser.add_argument("--dataset", help="name of a labelled zoo's data set, to score the predictor on")
    parser.add_argument("--data_path", help="folder or zip of that zoo (default: as main.py finds it)")
    parser.add_argument("--ckpt_epoch", metavar="EPOCH", help="epoch of its checkpoints (default: the run's)")
    parser.add_argument(
        "--n_heads",
        type=positive_int,
        help="heads of the networks, which no checkpoint tells (default: the run's; of a labelled zoo what its "
        "metadata tells, else what the run was told, else 2)",
    )
    parser.add_argument(
        "--where", metavar="COLUMN=VALUE,...", help="only rows of its metadata with these values (default: the run's)"
    )
    parser.add_argument(
        "--split",
        choices=("auto", "test", "all"),
        help="what is scored: the run's own test split, all of a zoo, or (auto, the default) the test split of the "
        "zoo that the run was trained on, wherever it lies now, and all of any other",
    )
    add_boolean(parser, "--allow_faulty", None, "score a zoo although more than 5 %% of it are faulty")
    parser.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=Path, help="write file, predicted and, where known, true accuracy to this CSV")
    return parser


def _check_sizes(zoo: Zoo, fitted: TrainedPredictor, where: str) -> None:
    for spec in (spec for spec in zoo.specs if not fitted.supports(spec)):
        own = fitted.spec
        pairs = ((spec.embedding, own.embedding), (spec.blocks, own.blocks), (spec.classifier, own.classifier))
        differing = next(f"{found} where the run's have {expected}" for found, expected in pairs if found != expected)
        raise RunError(f"{where}: its networks have other sizes than the run's: {differing}")


def _labelled_zoo(run: RunDirectory, flags: argparse.Namespace) -> DataConfig:
    """The zoo to score on, with the run's own condition on its rows."""
    own = run.read_config()[0].data
    dataset = flags.dataset or own.dataset
    data_path = flags.data_path or (own.data_path if dataset == own.dataset else None)
    return replace(
        own,
        dataset=dataset,
        data_path=absolute(find_zoo(dataset, data_path)),
        ckpt_epoch=flags.ckpt_epoch or own.ckpt_epoch,
        n_heads=flags.n_heads or own.n_heads,
        allow_faulty=bool(flags.allow_faulty) or own.allow_faulty,
    )


def _own_test_split(run: RunDirectory, data: DataConfig, where: str, must: bool) -> tuple[Zoo, Tensor] | None:
    """The run's zoo and the members of its test split that meet a condition; None where this is another zoo.

    Raises:
        RunError: it is another zoo although it must be the run's; none of the test split meets the condition.
    """
    own = run.read_config()[0].data
    try:
        zoo = load_zoo(data)
        index = recorded_split(zoo, read_json(run.split_file), run.split_file).test
    except (RunError, ZooError):
        # A zoo that the run does not know has no side that it was trained on.
        if must or data == own:
            raise
        return None
    if where != own.where:
        chosen = set(load_zoo(replace(data, where=where)).names)
        index = index[[zoo.names[place] in chosen for place in index.tolist()]]
        if not len(index):
            raise RunError(f"{data.data_path}: none of the run's test split is there where {where}")
    return zoo, index


def _score(run: RunDirectory, fitted: TrainedPredictor, flags: argparse.Namespace):
    """Names, predictions and labels of what is scored; the scores are printed."""
    data, own = _labelled_zoo(run, flags), run.read_config()[0].data
    where = own.where if flags.where is None else Condition.parse(flags.where).text
    wanted = replace(data, where=where)
    found = None if flags.split == "all" else _own_test_split(run, data, where, flags.split == "test")
    zoo = load_zoo(wanted) if found is None else found[0]
    _check_sizes(zoo, fitted, data.data_path)
    if found is None:
        index, what = torch.arange(len(zoo)), "all of its checkpoints"
    else:
        index, what = found[1], "the run's own test split"
        what += ", without its transformed copies" if own.augment else ""
    what += f", where {where}" if where else ""
    outputs = fitted.outputs(zoo, index)
    labels, predicted, runs = zoo.labels[index], fitted.accuracies(outputs), [zoo.runs[i] for i in index.tolist()]
    print(f"{data.dataset} ({data.data_path}), {what}: {len(index)} networks")
    interval = tau_interval(predicted, labels, runs, run.read_config()[0].seed)
    print(metrics_line(fitted.measure(outputs, labels), interval))
    return [zoo.names[i] for i in index.tolist()], predicted, labels


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    flags = build_parser().parse_args(arguments)
    of_a_zoo = [name for name in _ZOO_FLAGS if getattr(flags, name) is not None]
    if bool(of_a_zoo) == bool(flags.checkpoints):
        given = "".join(f", got both {flags.checkpoints[0]} and --{name}" for name in of_a_zoo[:1])
        raise UserError(f"name either checkpoints, or a labelled zoo by --dataset and --data_path{given}")
    run, device = RunDirectory.open(flags.run), find_device(flags.device)
    fitted = load_trained(run, device)
    labels = None
    if of_a_zoo:
        names, predicted, labels = _score(run, fitted, flags)
    else:
        names, found = read_loose_checkpoints(flags.checkpoints, fitted.spec, fitted.supports, flags.n_heads)
        predicted = torch.empty(len(names), dtype=torch.float64)
        for of_one_size in found:
            predicted[of_one_size.positions] = fitted.accuracies(fitted.outputs_of(of_one_size.weights))
        for name, accuracy in zip(names, predicted.tolist(), strict=True):
            print(f"{accuracy:.4f}  {printable(name)}")
    if flags.out is not None:
        try:
            write_predictions(flags.out, names, predicted, labels)
        except OSError as error:
            raise UserError(f"--out {flags.out}: cannot be written ({error.strerror})") from None
        print(f"written to {flags.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_command(main)
