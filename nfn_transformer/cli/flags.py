"""Flags that several commands share, declared once, and the configuration that they describe."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import Field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args

from nfn_transformer.cli.arguments import (
    HelpFormatter,
    add_boolean,
    channel_counts,
    find_device,
    number_in,
    seed_number,
)
from nfn_transformer.configuration import setting_of
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training.config import DataConfig, RunConfig, TrainingConfig, absolute, installed_versions
from nfn_transformer.trees.config import TREE_MODELS, BoostingConfig, TreeConfig
from nfn_transformer.trees.features import TREE_FEATURES
from nfn_transformer.zoo.metadata import Condition
from nfn_transformer.zoo.sources import find_zoo


def training_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags of all commands that train a predictor; each command adds those of its models."""
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=HelpFormatter, allow_abbrev=False
    )
    add_data_flags(parser)
    add_augmentation_flags(parser)
    add_run_flags(parser)
    add_tracking_flags(parser)
    return parser


def run_config(
    flags: argparse.Namespace, predictor: ModelConfig | TreeConfig, training: TrainingConfig | BoostingConfig
) -> RunConfig:
    """Return a run's configuration from the shared flags and from the command's own configurations.

    Raises:
        UserError: the zoo or the device does not exist.
    """
    return RunConfig(
        seed=flags.seed,
        model=flags.model,
        data=data_config(flags),
        predictor=predictor,
        training=training,
        device=str(find_device(flags.device)),
        versions=installed_versions(),
    )


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that choose a zoo and its checkpoints."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", default="mnist", help="name of the zoo's data set: NAME in metadata/NAME.csv")
    group.add_argument(
        "--data_path",
        help="folder or zip of the zoo (default: the first of data/DATASET_transformer, data/DATASET_transformer.zip, "
        "data/DATASET_transformers.zip that exists)",
    )
    group.add_argument(
        "--ckpt_epoch", default="75", metavar="EPOCH", help="epoch of the checkpoints: a number, best or all"
    )
    group.add_argument(
        "--cut_off",
        type=number_in(float, 0, 1),
        default=0.0,
        help="keep checkpoints of at least this accuracy, a fraction in [0, 1]",
    )
    group.add_argument(
        "--n_heads",
        type=number_in(int, 1),
        help="heads of the zoo's networks; a contradiction to the metadata is an error (default: what each row of the "
        "metadata tells, else 2)",
    )
    group.add_argument(
        "--where",
        default="",
        metavar="COLUMN=VALUE,...",
        help="read only the rows of the metadata with these values, as n_layers=2,embed_dim=32 of a zoo with networks "
        "of several sizes",
    )
    add_boolean(
        group,
        "--all_sizes",
        False,
        "read networks of all sizes that the metadata's columns embed_dim, n_attention_heads, n_layers and hidden tell "
        "apart, for --enc_mode complete, which reads them all by one model",
    )
    group.add_argument(
        "--train_networks",
        type=number_in(int, 1),
        help="train on so many of the training side, drawn by the seed, to see what a larger zoo is worth; validation "
        "and test sides stay (default: all)",
    )
    add_boolean(group, "--allow_faulty", False, "go on although more than 5 %% of the checkpoints are faulty")
    add_boolean(group, "--load_cache", True, "use what an earlier command read from the same, unchanged files")
    group.add_argument(
        "--n_workers",
        type=number_in(int, 0),
        default=0,
        help="processes that read checkpoints, and threads that "
        "read batches ahead where a zoo is streamed; 0: this one alone",
    )


def add_setting(group, entry: Field, help: str, default: Any = None) -> None:
    """Declare the flag of a configuration's field, with the bounds and choices that the field declares.

    Args:
        group: of a parser.
        entry: the field; of a type that may be None, the other one is meant.
        help: its explanation.
        default: value where the flag is not given.
    """
    rules, name, kind, help = setting_of(entry), f"--{entry.name}", entry.type, help.replace("%", "%%")
    if isinstance(kind, UnionType):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if kind is bool:
        add_boolean(group, name, default, help)
    elif rules.choices:
        group.add_argument(name, choices=rules.choices, default=default, help=help)
    elif kind in (int, float):
        low, high = (-math.inf if rules.low is None else rules.low), (math.inf if rules.high is None else rules.high)
        parse = number_in(kind, low, high, rules.above)
        group.add_argument(name, type=parse, metavar=rules.metavar, default=default, help=help)
    else:
        group.add_argument(name, type=channel_counts if kind == tuple[int, ...] else kind, default=default, help=help)


def add_tree_flags(parser: argparse.ArgumentParser, command: str, default: str) -> None:
    """Declare the flags of a tree model: those of TREE_MODELS that a command trains, and what they read."""
    group = parser.add_argument_group("model")
    models = {name: entry.help for name, entry in TREE_MODELS.items() if entry.command == command}
    features = {name: entry.help for name, entry in TREE_FEATURES.items()}
    for name, choices, value in (("--model", models, default), ("--features", features, "raw")):
        text = "; ".join(f"{choice}, {help}" for choice, help in choices.items()).replace("%", "%%")
        group.add_argument(name, choices=choices, default=value, help=text)


def add_augmentation_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of enlarging a zoo by its symmetry group."""
    group, default = parser.add_argument_group("augmentation"), DataConfig("", "")
    add_boolean(
        group,
        "--augment",
        default.augment,
        "enlarge each side of the split by transformed copies of its own members, which are the same functions",
    )
    group.add_argument(
        "--augment_factor",
        type=number_in(int, 2, 1000),
        default=default.augment_factor,
        help="with --augment: how many times its size a side ends up with",
    )
    group.add_argument(
        "--augment_scale",
        type=number_in(float, 1e-3, 1e3),
        default=default.augment_scale,
        help="with --augment: the entries of the matrices M and N are uniform in [-SCALE, SCALE]",
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of seed, device and run directory."""
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=seed_number, default=3, help="of split, parameters and batches")
    group.add_argument("--device", default="auto", help="auto (CUDA where there is a GPU), cpu, cuda, cuda:1, ...")
    group.add_argument("--out_dir", type=Path, help="run directory (default: a new one under runs/)")
    group.add_argument(
        "--resume",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="continue the run in this directory by its own configuration, device and number of threads; --device and "
        "--data_path may name another device and another place of the same zoo; several runs that differ by their "
        "seeds go on at once",
    )
    parser.set_defaults(seeds=None, stream=None)  # where a command has no such flags


def add_tracking_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of Weights & Biases."""
    group = parser.add_argument_group("tracking")
    add_boolean(group, "--wandb", None, "log to Weights & Biases (default: only where a sweep agent started this)")
    group.add_argument("--project", default="transformer-nfn", help="project at Weights & Biases")
    group.add_argument("--entity", help="entity at Weights & Biases (default: your own)")


def explicit_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, object]:
    """Return the flags on the command line alone, name -> value. The parser loses its defaults."""
    absent = object()
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), absent))
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not absent}


def data_config(flags: argparse.Namespace) -> DataConfig:
    """Return the data part of a run's configuration.

    Raises:
        UserError: no --data_path is given and none of the default places exists, or --where is no condition.
    """
    return DataConfig(
        dataset=flags.dataset,
        data_path=absolute(find_zoo(flags.dataset, flags.data_path)),
        ckpt_epoch=flags.ckpt_epoch,
        cut_off=flags.cut_off,
        n_heads=flags.n_heads,
        allow_faulty=flags.allow_faulty,
        train_networks=flags.train_networks,
        where=Condition.parse(flags.where).text,
        all_sizes=flags.all_sizes,
        augment=flags.augment,
        augment_factor=flags.augment_factor,
        augment_scale=flags.augment_scale,
    )
