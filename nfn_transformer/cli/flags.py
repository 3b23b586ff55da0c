"""Commands that train: the flags that they share, declared once, and the configuration that these describe."""

import argparse
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args

from nfn_transformer.cli.command_line import (
    Parser,
    add_boolean,
    channel_counts,
    find_device,
    number_in,
    seed_number,
    started_as,
)
from nfn_transformer.configuration import check_values, setting_of
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.resources import limit_threads
from nfn_transformer.training.config import DataConfig, RunConfig, TrainingConfig, installed_versions
from nfn_transformer.trees.config import TREE_MODELS, TREE_SETTING_KINDS, TREE_SETTINGS, BoostingConfig, TreeConfig
from nfn_transformer.trees.features import TREE_FEATURES
from nfn_transformer.zoo.metadata import Condition
from nfn_transformer.zoo.network_facts import FACTS, network_facts
from nfn_transformer.zoo.published_split import checksum_of
from nfn_transformer.zoo.sources import find_zoo

BUNDLED_DATASET = "digits"
"""Data set of the zoo that comes with the package, which is read where neither --dataset nor --data_path is given."""

DATA_FIELDS = {entry.name: entry for entry in fields(DataConfig) if setting_of(entry).help}
"""Fields of DataConfig by name that are flags."""


def training_parser(program: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with the flags of all commands that train a predictor; each command adds those of its models."""
    parser = Parser(program, description, examples)
    data, augmentation = parser.add_argument_group("data"), parser.add_argument_group("augmentation")
    for entry in DATA_FIELDS.values():
        group = augmentation if entry.name.startswith("augment") else data
        rules, default, help = setting_of(entry), entry.default, setting_of(entry).help
        if entry.name in ("dataset", "data_path"):
            default = None
        elif rules.key in DATA_FIELDS and rules.key != entry.name:  # a flag that another one enables
            default, help = None, f"{help} (default: {entry.default})"
        add_setting(group, entry, help, default)
    add_boolean(data, "--load_cache", True, "use what an earlier command read from the same, unchanged files")
    data.add_argument(
        "--n_workers",
        type=number_in(int, 0),
        default=0,
        help="processes that read checkpoints, and threads that read batches ahead where a zoo is streamed; 0: this "
        "one alone",
    )
    run = parser.add_argument_group("run")
    fit_all = (
        "with --folds: then train on all networks, for the median of the folds' best epochs, and keep that predictor"
    )
    add_boolean(run, "--fit_all", None, fit_all)
    run.add_argument("--seed", type=seed_number, default=3, help="of split, parameters and batches")
    run.add_argument("--device", default="auto", help="auto (CUDA where there is a GPU), cpu, cuda, cuda:1, ...")
    run.add_argument(
        "--ceiling_images",
        type=Path,
        metavar="FOLDER",
        help="labelled images of the task, as make_zoo.py takes them by --images: report how well the test networks' "
        "accuracy on the test images among them (MNIST's t10k files, or an .npz's test_images) ranks the labels; "
        "docs/tasks.md tells those of scikit-learn's digits",
    )
    run.add_argument(
        "--ceiling_skip",
        type=number_in(int, 0),
        metavar="N",
        help="with --ceiling_images: leave out the first N test images in the files' order, those that the labels are "
        "of (default: 0)",
    )
    run.add_argument("--out_dir", type=Path, help="run directory (default: a new one under runs/)")
    run.add_argument(
        "--resume",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="continue the run in this directory by its own configuration, device and number of threads; --device, "
        "--data_path, --table and --ceiling_images may name another device and another place of the same files; "
        "runs of several seeds go on at once where all their directories are listed, OUT_DIR/seed1 OUT_DIR/seed2 ...",
    )
    parser.set_defaults(seeds=None, stream=None)  # where a command has no such flags
    tracking = parser.add_argument_group("tracking")
    add_boolean(tracking, "--wandb", None, "log to Weights & Biases (default: only where a sweep agent started this)")
    tracking.add_argument("--project", default="transformer-nfn", help="project at Weights & Biases")
    tracking.add_argument("--entity", help="entity at Weights & Biases (default: your own)")
    return parser


def run_config(
    flags: argparse.Namespace, predictor: ModelConfig | TreeConfig, training: TrainingConfig | BoostingConfig
) -> RunConfig:
    """Return a run's configuration from the shared flags and from the command's own configurations.

    Raises:
        UserError: no zoo or device is there, --where or --test_where is no condition, or a flag requires another one.
    """
    data = {name: getattr(flags, name) for name in DATA_FIELDS if getattr(flags, name) is not None}
    try:
        check_values(DATA_FIELDS.values(), {name: getattr(flags, name) for name in DATA_FIELDS})
    except ValueError as error:
        raise UserError(str(error)) from None
    if facts := {name: data[name] for name in FACTS if name in data}:
        network_facts({}, facts, {})
    if flags.ceiling_images is None and flags.ceiling_skip is not None:
        raise UserError(f"--ceiling_skip {flags.ceiling_skip}: requires --ceiling_images")
    if flags.folds is None and flags.fit_all:
        raise UserError("--fit_all True: requires --folds")
    if flags.folds is not None:
        others = {name: getattr(flags, name) for name in ("seeds", "split", "test_where", "augment", "train_networks")}
        others |= {"task": "edit"} if flags.task == "edit" else {}
        if combined := next((name for name, value in others.items() if value), None):
            value = others[combined]
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            raise UserError(f"--{combined} {text}: cannot be combined with --folds")
    dataset = flags.dataset or ("mnist" if flags.data_path else BUNDLED_DATASET)
    if flags.table is not None:
        if flags.data_path is None:
            raise UserError(f"--table {flags.table}: requires --zoo FOLDER, which holds its checkpoints")
        data["table"], dataset = str(Path(flags.table).resolve()), flags.dataset or Path(flags.data_path).resolve().stem
    zoo = Path(find_zoo(dataset, flags.data_path)).resolve()
    data |= {"dataset": dataset, "data_path": str(zoo), "where": Condition.parse(flags.where).text}
    data["test_where"] = Condition.parse(flags.test_where, "--test_where").text
    if flags.split:
        if flags.test_where:
            raise UserError(f"--test_where {flags.test_where}: cannot be combined with --split")
        data |= {"split": str(Path(flags.split).resolve()), "split_checksum": checksum_of(Path(flags.split))}
    limit_threads()  # before their number is recorded
    return RunConfig(
        seed=flags.seed,
        model=flags.model,
        data=DataConfig(**data),
        predictor=predictor,
        training=training,
        device=str(find_device(flags.device)),
        fit_all=bool(flags.fit_all),
        ceiling_images="" if flags.ceiling_images is None else str(flags.ceiling_images.resolve()),
        ceiling_skip=flags.ceiling_skip or 0,
        versions=installed_versions(),
    )


def add_setting(group, entry: Field, help: str, default: Any = None) -> None:
    """Declare the flag of a configuration's field, with the bounds and choices that the field declares.

    Args:
        group: of a parser.
        entry: the field; of a type that may be None, the other one is meant.
        help: its explanation.
        default: value where the flag is not given.
    """
    rules, name, help = setting_of(entry), f"--{entry.name}", help.replace("%", "%%")
    kind: Any = entry.type
    if isinstance(kind, UnionType):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if kind is bool:
        add_boolean(group, name, default, help)
    elif rules.choices:
        group.add_argument(name, choices=rules.choices, default=default, help=help)
    else:
        parse: Callable[[str], Any] = channel_counts if kind == tuple[int, ...] else kind
        if kind in (int, float):
            low = -math.inf if rules.low is None else rules.low
            parse = number_in(kind, low, math.inf if rules.high is None else rules.high, rules.above)
        names = [name, *([f"--{rules.alias}"] if rules.alias else [])]
        group.add_argument(*names, type=parse, metavar=rules.metavar, default=default, help=help)


def add_tree_flags(parser: argparse.ArgumentParser, command: str, default: str) -> None:
    """Declare the flags of a tree model: those of TREE_MODELS that a command trains, and what they read."""
    group = parser.add_argument_group("model")
    models = {name: entry.help for name, entry in TREE_MODELS.items() if entry.command == command}
    features = {name: entry.help for name, entry in TREE_FEATURES.items()}
    for name, choices, value in (("--model", models, default), ("--features", features, "raw")):
        text = "; ".join(f"{choice}, {help}" for choice, help in choices.items()).replace("%", "%%")
        group.add_argument(name, choices=choices, default=value, help=text)
    trees = parser.add_argument_group("trees")
    for name, rules in TREE_SETTINGS.items():
        defaults = {model: TREE_MODELS[model].defaults[name] for model in models if name in TREE_MODELS[model].defaults}
        if defaults:
            several = len(set(defaults.values())) > 1 or len(defaults) < len(models)
            each = ", ".join(f"{value} with --model {model}" for model, value in defaults.items())
            text = f"{rules.help} (default: {each if several else next(iter(defaults.values()))})"
            high = math.inf if rules.high is None else rules.high
            parse = number_in(TREE_SETTING_KINDS[name], rules.low or 0, high, rules.above)
            trees.add_argument(f"--{name}", type=parse, help=text)


def tree_run_config(flags: argparse.Namespace) -> RunConfig:
    """Return the configuration of the run of a tree model that flags describe.

    Raises:
        UserError: see `run_config`; or the model does not read a flag.
    """
    entry = TREE_MODELS[flags.model]
    given = {name: getattr(flags, name) for name in TREE_SETTINGS if getattr(flags, name, None) is not None}
    try:
        return run_config(flags, entry.config(flags.features, given), entry.boosting_by(given))
    except ValueError as error:
        raise UserError(str(error)) from None


def explicit_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the flags on the command line alone, name -> value. The parser loses its defaults."""
    absent = object()
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), absent))
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not absent}


# What may be given with --resume: nothing that decides a run's numbers, but the device if one insists.
_FREE_ON_RESUME = {
    *("resume", "plugin", "device", "data_path", "table", "n_workers", "load_cache", "stream", "compile"),
    *("ceiling_images", "ceiling_skip", "cuda_graphs", "wandb", "project", "entity", "fit_all"),
}


@dataclass(frozen=True)
class TrainingCommand:
    """Command that trains a predictor."""

    program: str
    """File of the command."""
    build_parser: Callable[[], argparse.ArgumentParser]
    """Build the parser of its flags, those of `cli.flags` among them."""
    run_config: Callable[[argparse.Namespace], RunConfig]
    """Return the configuration of the run that flags describe."""
    shares_a_run: bool = False
    """True if processes that torchrun started can share a run."""

    @property
    def path(self) -> Path:
        """Return the path of the command's file."""
        return Path(__file__).parents[1] / self.program

    def run(self, arguments: Sequence[str]) -> int:
        """Train, or go on; test once; report. Return the exit status.

        Raises:
            UserError: flags cannot be combined, or what they name cannot be used.
        """
        flags = self.build_parser().parse_args(arguments)
        given = explicit_flags(self.build_parser(), arguments)
        if flags.resume is not None:
            fixed = ", ".join(f"--{name}" for name in sorted(set(given) - _FREE_ON_RESUME))
            if fixed:
                paths = " ".join(map(str, flags.resume))
                raise RunError(f"--resume {paths} goes on by the run's own configuration; leave out {fixed}")
        if flags.seeds is not None and "seed" in given:
            raise UserError("--seed and --seeds contradict each other; give one of them")
        config = None
        if flags.resume is None:
            words = f"{started_as(self.program)} {shlex.join(arguments)}".rstrip()
            config = replace(self.run_config(flags), command=words)
        # Flags are checked before PyTorch and all that a training needs are imported, which takes seconds.
        from nfn_transformer.cli.training_command import train_by_flags

        return train_by_flags(self, flags, given, config)
