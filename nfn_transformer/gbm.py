"""Train LightGBM, extremely randomised trees or a blend on the weights of a zoo to predict their accuracy.

python nfn_transformer/gbm.py --model gbdt --dataset digits --data_path data/digits_transformers.zip
"""

import argparse
from collections.abc import Sequence

from nfn_transformer.cli import flags as shared_flags
from nfn_transformer.cli.command_line import run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = shared_flags.training_parser(
        "gbm.py",
        "Train LightGBM, a forest of extremely randomised trees, or its blend with Gaussian processes, on the weights "
        "of a zoo, and test it once.",
        (
            "python nfn_transformer/gbm.py --model gbdt    # on the bundled zoo",
            "python nfn_transformer/gbm.py --model extra_trees --features invariants --seed 1",
            "python nfn_transformer/gbm.py --model blend --features consensus --seed 1",
        ),
    )
    shared_flags.add_tree_flags(parser, "gbm", "rf")
    return parser


COMMAND = shared_flags.TrainingCommand("gbm.py", build_parser, shared_flags.tree_run_config)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    return COMMAND.run(arguments)


if __name__ == "__main__":
    run_command(main)
