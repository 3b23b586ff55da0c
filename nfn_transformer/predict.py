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

from nfn_transformer import cli, cli_flags
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.experiments.config import absolute
from nfn_transformer.experiments.data import load_zoo, recorded_split
from nfn_transformer.experiments.metrics import Metrics, measure
from nfn_transformer.experiments.run_directory import RunDirectory, read_json, write_csv
from nfn_transformer.experiments.saved_predictor import load_predictor
from nfn_transformer.experiments.training import EVALUATION_BATCH, predict_logits
from nfn_transformer.models.predictor import AccuracyPredictor
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.reading import Zoo


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
        "--split",
        choices=("auto", "test", "all"),
        default="auto",
        help="what is scored: the run's own test split, all of a zoo, or (auto, the default) the test split on the "
        "zoo that the run was trained on and all of any other",
    )
    cli.add_boolean(parser, "--allow_faulty", False, "score a zoo although more than 5 %% of it are faulty")
    parser.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=Path, help="write file, predicted and, where known, true accuracy to this CSV")
    return parser


def _predict_checkpoints(model: AccuracyPredictor, paths: list[Path], device: torch.device) -> list[list]:
    names, weights = read_loose_checkpoints(paths, model.spec)
    with torch.inference_mode():
        parts = [
            model.predict(weights[start : start + EVALUATION_BATCH].to(device)).cpu()
            for start in range(0, len(names), EVALUATION_BATCH)
        ]
    return [list(row) for row in zip(names, torch.cat(parts).tolist(), strict=True)]


def _check_sizes(zoo: Zoo, spec: TransformerSpec, where: str) -> None:
    if zoo.spec != spec:
        differing = next(
            (f"{found} where the run's have {expected}")
            for found, expected in (
                (zoo.spec.embedding, spec.embedding),
                (zoo.spec.blocks, spec.blocks),
                (zoo.spec.classifier, spec.classifier),
            )
            if found != expected
        )
        raise RunError(f"{where}: its networks have other sizes than the run's: {differing}")


def _score(run: RunDirectory, model: AccuracyPredictor, flags: argparse.Namespace) -> tuple[list[list], Metrics, str]:
    own = run.read_config()[0].data
    dataset = flags.dataset or own.dataset
    data_path = flags.data_path or (own.data_path if dataset == own.dataset else cli_flags.default_data_path(dataset))
    epoch = flags.ckpt_epoch or own.ckpt_epoch
    wanted = replace(
        own, dataset=dataset, data_path=absolute(data_path), ckpt_epoch=epoch, allow_faulty=flags.allow_faulty
    )
    same = replace(wanted, allow_faulty=own.allow_faulty) == own
    if same:
        wanted = own
    zoo = load_zoo(wanted)
    _check_sizes(zoo, model.spec, wanted.data_path)
    if flags.split == "test" or (flags.split == "auto" and same):
        index, what = recorded_split(zoo, read_json(run.split_file)).test, "the run's own test split"
    else:
        index, what = torch.arange(len(zoo)), "all of its checkpoints"
    device = next(model.parameters()).device
    logits = predict_logits(model, replace(zoo, rows=zoo.rows.to(device)), index)
    labels = zoo.labels[index]
    names = [zoo.names[i] for i in index.tolist()]
    rows = [list(row) for row in zip(names, logits.sigmoid().tolist(), labels.tolist(), strict=True)]
    return rows, measure(logits, labels), f"{wanted.dataset} ({wanted.data_path}), {what}"


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    flags = build_parser().parse_args(arguments)
    labelled = flags.dataset is not None or flags.data_path is not None
    if labelled == bool(flags.checkpoints):
        raise UserError("name either checkpoints or a labelled zoo by --dataset and --data_path")
    run, device = RunDirectory.open(flags.run), cli.device(flags.device)
    model, _ = load_predictor(run.best_file)
    model.to(device).eval()
    if labelled:
        rows, metrics, what = _score(run, model, flags)
        print(f"{what}: {len(rows)} networks")
        print(f"tau {metrics.tau:.4f}  R2 {metrics.r2:.4f}  MAE {metrics.mae:.4f}")
    else:
        rows = _predict_checkpoints(model, flags.checkpoints, device)
        for name, predicted in rows:
            print(f"{predicted:.4f}  {name}")
    if flags.out is not None:
        header = ["file", "predicted", "accuracy"]
        try:
            write_csv(flags.out, header[: len(rows[0])], rows)
        except OSError as error:
            raise UserError(f"--out {flags.out}: cannot be written ({error.strerror})") from None
        print(f"written to {flags.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    cli.run_command(main)
