"""Train LightGBM on the flattened weights of a zoo of transformers to predict their accuracy, and test it once.

python nfn_transformer/gbm.py --model gbdt --dataset digits --data_path data/digits_transformers.zip
"""

import argparse
from collections.abc import Sequence

from nfn_transformer import cli, cli_flags
from nfn_transformer.baselines.tree_config import LIGHTGBM_BOOSTING, LIGHTGBM_MODELS, lightgbm_config
from nfn_transformer.experiments.config import RunConfig
from nfn_transformer.training_command import TrainingCommand


def build_parser() -> argparse.ArgumentParser:
    """The command's flags, in groups."""
    parser = cli_flags.training_parser(
        "gbm.py", "Train LightGBM on the flattened weights of a zoo of transformers, and test it once."
    )
    parser.add_argument_group("model").add_argument(
        "--model", choices=LIGHTGBM_MODELS, default="rf", help="gbdt, gradient boosted trees, or rf, a random forest"
    )
    return parser


def run_config(flags: argparse.Namespace) -> RunConfig:
    """What the flags ask for."""
    return cli_flags.run_config(flags, lightgbm_config(flags.model), LIGHTGBM_BOOSTING)


COMMAND = TrainingCommand("gbm.py", build_parser, run_config)


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    return COMMAND.run(arguments)


if __name__ == "__main__":
    cli.run_command(main)
