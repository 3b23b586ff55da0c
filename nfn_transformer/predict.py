"""Predict labels of networks, as their accuracy, from their weights by a trained predictor, or score it on a zoo.

python nfn_transformer/predict.py --run RUN CHECKPOINT [CHECKPOINT ...]
python nfn_transformer/predict.py --run RUN --dataset mnist --data_path data/mnist_transformer
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from nfn_transformer.cli.command_line import Parser, add_boolean, positive_int, run_command
from nfn_transformer.configuration import setting_of
from nfn_transformer.errors import UserError
from nfn_transformer.training.config import DataConfig
from nfn_transformer.zoo.network_facts import FACTS

_COLUMN_FLAGS = ("file_column", "epoch_column", "label_column", "run_column")
_ZOO_FLAGS = ("dataset", "data_path", "table", "ckpt_epoch", "split", "allow_faulty", "where", *_COLUMN_FLAGS, *FACTS)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = Parser(
        "predict.py",
        "Predict labels of networks, as their accuracy, from their weights by a trained predictor: of checkpoints, "
        "or, with --dataset and --data_path, of a labelled zoo, which also scores the predictor.",
        (
            "python nfn_transformer/predict.py --run runs/RUN checkpoint.pt folder/ zipped.zip --out predicted.csv",
            "python nfn_transformer/predict.py --run runs/RUN --split test    # the run's own test networks",
            "python nfn_transformer/predict.py --run runs/RUN --dataset mnist --data_path data/mnist_transformer",
        ),
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
    parser.add_argument("--data_path", "--zoo", help="folder or zip of that zoo (default: as main.py finds it)")
    parser.add_argument("--table", metavar="FILE", help="CSV of files and scores of networks in any folder or zip")
    parser.add_argument("--ckpt_epoch", metavar="EPOCH", help="epoch of its checkpoints (default: the run's)")
    parser.add_argument(
        "--n_heads",
        type=positive_int,
        help="attention heads of the networks, which no checkpoint tells (default: the run's; of a labelled zoo what "
        "its metadata tells, else that of the run's --n_heads, else 2)",
    )
    parser.add_argument(
        "--where", metavar="COLUMN=VALUE,...", help="only rows of its metadata with these values (default: the run's)"
    )
    parser.add_argument(
        "--split",
        choices=("auto", "test", "all"),
        help="checkpoints to score: the run's own test split, all of a zoo, or (auto, the default) the test split of "
        "the zoo that the run was trained on, wherever it lies now, and of any other zoo all that the run was neither "
        "trained on nor selected by",
    )
    for entry in fields(DataConfig):
        if entry.name in (*_COLUMN_FLAGS, "weights_key", *FACTS):
            rules = setting_of(entry)
            help = rules.help.replace("(default:", "(default: the run's; else")
            parser.add_argument(f"--{entry.name}", metavar=rules.metavar, help=help)
    add_boolean(parser, "--allow_faulty", None, "score a zoo although more than 5 %% of it are faulty")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FEW.csv",
        help="fit scale and offset of the predictions, of accuracies on the logit, to a few networks of known label: a "
        "CSV of their files and labels, with columns as of --table",
    )
    parser.add_argument("--out", type=Path, help="write file, predicted and, where known, true label to this CSV")
    parser.add_argument(
        "--edited", type=Path, metavar="FOLDER", help="of a run of --task edit: write the changed INRs as checkpoints"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    flags = build_parser().parse_args(arguments)
    zoo_flags = [name for name in _ZOO_FLAGS if getattr(flags, name) is not None]
    if bool(zoo_flags) == bool(flags.checkpoints):
        both = "".join(f", got both {flags.checkpoints[0]} and --{name}" for name in zoo_flags[:1])
        zoo = "a labelled zoo by --dataset and --data_path or by --zoo and --table"
        raise UserError(f"expected either checkpoints, or {zoo}{both}")
    # PyTorch and all that predicting needs take seconds to import: flags are checked before.
    from nfn_transformer.cli.predict_command import predict_by_flags

    return predict_by_flags(flags)


if __name__ == "__main__":
    run_command(main)
