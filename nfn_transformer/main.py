"""Train a predictor of accuracy on the weights of a zoo of transformers, and test it once.

python nfn_transformer/main.py --dataset digits --data_path data/digits_transformers.zip
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace

from nfn_transformer.cli import flags as shared_flags
from nfn_transformer.cli.command_line import add_boolean, run_command, seed_list
from nfn_transformer.configuration import setting_of
from nfn_transformer.errors import UserError
from nfn_transformer.models.config import ModelConfig, defaults_of, readers_of
from nfn_transformer.models.registry import ROLES, entries, load_plugin
from nfn_transformer.training.config import NETWORK, RunConfig, TrainingConfig

_SMALL_ZOOS = ("ensemble", "dropout", "standardize", "log_magnitudes")
_TRAINING = [entry for entry in fields(TrainingConfig) if setting_of(entry).help]
_SPEED = ("compile", "cuda_graphs", "amp")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags, those of loaded plugins among them."""
    parser = shared_flags.training_parser(
        "main.py",
        "Train a predictor of accuracy on the weights of a zoo of transformers, and test it once.",
        (
            "python nfn_transformer/main.py --enc_mode complete    # on the bundled zoo",
            "python nfn_transformer/main.py --dataset mnist --data_path data/mnist_transformer --seeds 1,2,3",
            "python nfn_transformer/main.py --resume runs/digits-inv-mlp-mlp-seed3-20260101-120000",
        ),
    )
    model, small_zoos = parser.add_argument_group("model"), parser.add_argument_group("small zoos")
    training, speed = parser.add_argument_group("training"), parser.add_argument_group("speed")
    model.add_argument("--model", choices=[NETWORK], default=NETWORK, help="family of the model")
    for role in ROLES:
        choices = entries(role)
        explained = [
            f"{entry.name} ({entry.part}), {entry.help}"
            + ("" if entry.symmetry == "none" else f"; invariant to {entry.symmetry}")
            for entry in choices.values()
        ]
        published = defaults_of(role.mode, getattr(ModelConfig, role.mode))
        text = f"{role.name}: {' | '.join([*explained, 'no, not read'])} ({published})"
        model.add_argument(f"--{role.mode}", choices=["no", *choices], help=text)
    model.add_argument(
        "--plugin",
        nargs="+",
        metavar="FILE",
        help="Python files that register encoders, classifier heads or embedding branches; see docs/extending.md",
    )
    choice_settings = {
        name: entry for role in ROLES for each in entries(role).values() for name, entry in each.settings.items()
    }
    for entry in (*fields(ModelConfig), *choice_settings.values()):
        help = setting_of(entry).help
        if help:
            group = small_zoos if entry.name in _SMALL_ZOOS else model
            readers = readers_of(entry.name)
            text = f"{help} ({f'with {readers}; ' if readers else ''}{defaults_of(entry.name, entry.default)})"
            shared_flags.add_setting(group, entry, text)
    for entry in _TRAINING:
        group = speed if entry.name in _SPEED else small_zoos if entry.name == "early_stopping" else training
        default = None if entry.name == "cuda_graphs" else entry.default
        shared_flags.add_setting(group, entry, setting_of(entry).help, default)
    speed.add_argument(
        "--seeds",
        type=seed_list,
        help="in place of --seed: several, as in 1,2,3, trained at once; each has its own split and run directory, "
        "seedN in --out_dir where that is given",
    )
    add_boolean(
        speed,
        "--stream",
        None,
        "read every batch from the zoo's mapped cache (default: only where the zoo does not fit into half of the "
        "device's free memory); features that take long to make are always kept",
    )
    return parser


def run_config(flags: argparse.Namespace) -> RunConfig:
    """Return the configuration of the run that flags describe."""
    settings = {entry.name: getattr(flags, entry.name) for entry in _TRAINING}
    training = TrainingConfig(**{**settings, "cuda_graphs": bool(flags.cuda_graphs)})
    config = shared_flags.run_config(flags, ModelConfig.from_flags(vars(flags)), training)
    if flags.cuda_graphs is None and config.device != "cpu":
        from nfn_transformer.training.distributed import Distributed  # imports PyTorch

        is_alone, model = Distributed.from_environment().count == 1, config.predictor
        graphs = is_alone and all(entry.cuda_graphs for entry in model.chosen.values())
        config = replace(config, training=replace(training, cuda_graphs=graphs))
    return config


COMMAND = shared_flags.TrainingCommand("main.py", build_parser, run_config, shares_a_run=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    plugins = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    plugins.add_argument("--plugin", nargs="+", default=[])
    for path in plugins.parse_known_args(arguments)[0].plugin:  # the other flags depend on them
        load_plugin(path)
        try:
            build_parser()
        except argparse.ArgumentError as error:
            raise UserError(f"--plugin {path}: {error}") from None
    return COMMAND.run(arguments)


if __name__ == "__main__":
    run_command(main)
