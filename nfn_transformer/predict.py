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

from nfn_transformer.cli.command_line import add_boolean, find_device, positive_int, run_command
from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.models.registry import load_plugin
from nfn_transformer.training.config import DataConfig, absolute
from nfn_transformer.training.data import load_zoo, recorded_split
from nfn_transformer.training.metrics import tau_interval
from nfn_transformer.training.report import metrics_line, write_predictions
from nfn_transformer.training.run_directory import RunDirectory, read_json
from nfn_transformer.training.trained_predictor import TrainedPredictor, load_trained
from nfn_transformer.zoo.faults import printable
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.metadata import Condition
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo
from nfn_transformer.zoo.sources import find_zoo

_ZOO_FLAGS = ("dataset", "data_path", "ckpt_epoch", "split", "allow_faulty", "where")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description="Predict the accuracy of transformers from their weights by a trained predictor: of checkpoints, "
        "or, with --dataset and --data_path, of a labelled zoo, which also scores the predictor.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoints", nargs="*", type=Path, help="checkpoint files, folders or zips of them")
    parser.add_argument("--run", type=Path, required=True, help="run directory of a trained predictor")
    parser.add_argument(
        "--plugin",
        action="extend",
        nargs=1,
        default=[],
        metavar="FILE",
        help="Python file that registers the run's encoder or head, in place of the recorded one; once for each",
    )
    parser.add_argument("--dataset", help="name of a labelled zoo's data set, to score the predictor on")
    parser.add_argument("--data_path", help="folder or zip of that zoo (default: as main.py finds it)")
    parser.add_argument("--ckpt_epoch", metavar="EPOCH", help="epoch of its checkpoints (default: the run's)")
    parser.add_argument(
        "--n_heads",
        type=positive_int,
        help="heads of the networks, which no checkpoint tells (default: the run's; of a labelled zoo what its "
        "metadata tells, else that of the run's --n_heads, else 2)",
    )
    parser.add_argument(
        "--where", metavar="COLUMN=VALUE,...", help="only rows of its metadata with these values (default: the run's)"
    )
    parser.add_argument(
        "--split",
        choices=("auto", "test", "all"),
        help="checkpoints to score: the run's own test split, all of a zoo, or (auto, the default) the test split of "
        "the zoo that the run was trained on, wherever it lies now, and all of any other zoo",
    )
    add_boolean(parser, "--allow_faulty", None, "score a zoo although more than 5 %% of it are faulty")
    parser.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=Path, help="write file, predicted and, where known, true accuracy to this CSV")
    return parser


def _labelled_data(trained_on: DataConfig, flags: argparse.Namespace) -> DataConfig:
    """Return the data to score on, before the flags' condition on its rows: the run's own where no flag differs."""
    dataset = flags.dataset or trained_on.dataset
    data_path = flags.data_path or (trained_on.data_path if dataset == trained_on.dataset else None)
    return replace(
        trained_on,
        dataset=dataset,
        data_path=absolute(find_zoo(dataset, data_path)),
        ckpt_epoch=flags.ckpt_epoch or trained_on.ckpt_epoch,
        n_heads=flags.n_heads or trained_on.n_heads,
        allow_faulty=bool(flags.allow_faulty) or trained_on.allow_faulty,
    )


def _load_test_split(
    run: RunDirectory, data: DataConfig, condition: str, required: bool
) -> tuple[Zoo | MixedZoo, Tensor] | None:
    """Return the run's zoo and the members of its test split that meet a condition; None for another zoo.

    Raises:
        RunError: `data` is another zoo although the run's is required, or no member meets the condition.
    """
    trained_on = run.read_config()[0].data
    try:
        zoo = load_zoo(data)
        index = recorded_split(zoo, read_json(run.split_file), run.split_file).test
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


def _check_sizes(zoo: Zoo | MixedZoo, predictor: TrainedPredictor, data_path: str) -> None:
    """Check that a predictor supports all networks of a zoo.

    Raises:
        RunError: some networks have other sizes.
    """
    for spec in zoo.specs:
        if not predictor.supports(spec):
            run = predictor.spec
            pairs = ((run.embedding, spec.embedding), (run.blocks, spec.blocks), (run.classifier, spec.classifier))
            expected, size = next(pair for pair in pairs if pair[0] != pair[1])
            raise RunError(
                f"{data_path}: its networks have other sizes than the run's: expected {expected}, got {size}"
            )


def _score(
    run: RunDirectory, predictor: TrainedPredictor, flags: argparse.Namespace
) -> tuple[list[str], Tensor, Tensor]:
    """Print the scores on a labelled zoo; return its names, predicted accuracies [n] and labels [n]."""
    config = run.read_config()[0]
    data = _labelled_data(config.data, flags)
    condition = config.data.where if flags.where is None else Condition.parse(flags.where).text
    test_split = None if flags.split == "all" else _load_test_split(run, data, condition, flags.split == "test")
    if test_split is None:
        zoo = load_zoo(replace(data, where=condition))
        index, scope = torch.arange(len(zoo)), "all of its checkpoints"
    else:
        (zoo, index), scope = test_split, "the run's own test split"
        scope += ", without its transformed copies" if config.data.augment else ""
    scope += f", where {condition}" if condition else ""
    _check_sizes(zoo, predictor, data.data_path)
    outputs, labels = predictor.outputs(zoo, index), zoo.labels[index]
    predicted = predictor.accuracies(outputs)
    print(f"{data.dataset} ({data.data_path}), {scope}: {len(index)} networks")
    interval = tau_interval(predicted, labels, [zoo.runs[i] for i in index.tolist()], config.seed)
    print(metrics_line(predictor.measure(outputs, labels), interval))
    return [zoo.names[i] for i in index.tolist()], predicted, labels


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    flags = build_parser().parse_args(arguments)
    zoo_flags = [name for name in _ZOO_FLAGS if getattr(flags, name) is not None]
    if bool(zoo_flags) == bool(flags.checkpoints):
        both = "".join(f", got both {flags.checkpoints[0]} and --{name}" for name in zoo_flags[:1])
        raise UserError(f"expected either checkpoints, or a labelled zoo by --dataset and --data_path{both}")
    for path in flags.plugin:
        load_plugin(path)
    run, device = RunDirectory.open(flags.run), find_device(flags.device)
    predictor = load_trained(run, device)
    labels = None
    if zoo_flags:
        names, predicted, labels = _score(run, predictor, flags)
    else:
        names, groups = read_loose_checkpoints(flags.checkpoints, predictor.spec, predictor.supports, flags.n_heads)
        predicted = torch.empty(len(names), dtype=torch.float64)
        for group in groups:
            predicted[group.positions] = predictor.accuracies(predictor.outputs_of(group.weights))
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
