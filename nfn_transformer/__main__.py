"""The console command: `nfn-transformer COMMAND` takes the flags of the command's own program.

    nfn-transformer train --dataset digits
    nfn-transformer train --help

`python -m nfn_transformer` is the same. A command's module is imported only when the command is chosen.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from nfn_transformer import __version__
from nfn_transformer.cli.command_line import CONSOLE_COMMANDS, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser that chooses a command and leaves the rest to the command."""
    lines = [f"  {name:10} {help}" for name, (_, help) in CONSOLE_COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="nfn-transformer",
        usage="%(prog)s [--help] [--version] COMMAND [FLAGS]",
        description="Predict the accuracy of transformers from their weights.",
        epilog="\n".join(["commands:", *lines, "", "nfn-transformer COMMAND --help explains a command's flags."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=tuple(CONSOLE_COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the chosen command and return its exit status."""
    chosen = build_parser().parse_args(arguments or ["--help"])
    module, _ = CONSOLE_COMMANDS[chosen.command]
    sys.argv[0] = f"nfn-transformer {chosen.command}"  # the name of the program in its help, its errors and its runs
    return importlib.import_module(f"nfn_transformer.{module}").main(chosen.arguments)


def run_console() -> None:
    """Run the console command and end the process."""
    run_command(main)


if __name__ == "__main__":
    run_console()
