"""Say what a checkpoint is: family, sizes, symmetries, norms of its blocks, and what was not understood.

nfn-transformer inspect model.safetensors
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from nfn_transformer.cli.command_line import Parser, positive_int, run_command
from nfn_transformer.configuration import setting_of
from nfn_transformer.training.config import DataConfig
from nfn_transformer.zoo.network_facts import FACTS, network_facts


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = Parser(
        "inspect_checkpoint.py",
        "Say what checkpoints are: family, sizes, parameters, symmetries with their dimensions, norms of blocks, and "
        "what was not understood.",
        (
            "python nfn_transformer/inspect_checkpoint.py bert-base-uncased",
            "python nfn_transformer/inspect_checkpoint.py model.pt --n_heads 4 --norm_placement pre",
        ),
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="checkpoint, or folder of checkpoints")
    parser.add_argument("--n_heads", type=positive_int, help="attention heads, where no config.json tells them")
    parser.add_argument("--weights_key", help="key of the weights, in files that hold several networks")
    for entry in fields(DataConfig):
        if entry.name in FACTS:
            rules = setting_of(entry)
            parser.add_argument(f"--{entry.name}", metavar=rules.metavar, help=rules.help)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    flags = build_parser().parse_args(arguments)
    texts = {name: value for name in FACTS if (value := getattr(flags, name)) is not None}
    facts = network_facts({}, texts, {}) | ({"heads": flags.n_heads} if flags.n_heads else {})
    from nfn_transformer.cli.inspect_command import describe_checkpoints  # imports PyTorch

    for text in describe_checkpoints(flags.paths, facts, flags.weights_key):
        print(text, flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
