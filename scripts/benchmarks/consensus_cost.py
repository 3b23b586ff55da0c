"""Seconds that the consensus of a zoo costs: making its tests, and reading votes and features of all networks.

    python scripts/benchmarks/consensus_cost.py --data_path data/mnist_600_seed3.zip --dataset mnist --ckpt_epoch 100

The features are those of `gbm.py --features consensus`, of all sides of the split.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import spread

from nfn_transformer.cli.command_line import positive_int
from nfn_transformer.models.consensus import Consensus
from nfn_transformer.resources import limit_threads
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import draw_split, load_zoo
from nfn_transformer.trees.features import features_of_checkpoints


def seconds_of(function: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds by the clock, and those of processors, of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Print medians and ranges over rounds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, help="folder or archive of the zoo")
    parser.add_argument("--dataset", default="mnist", help="name of its data set")
    parser.add_argument("--ckpt_epoch", default="75", help="see main.py")
    parser.add_argument("--seed", type=int, default=1, help="of split and tests")
    parser.add_argument("--rounds", type=positive_int, default=3, help="of reading (default: %(default)s)")
    flags = parser.parse_args()
    threads = limit_threads()
    config = DataConfig(flags.dataset, str(flags.data_path), ckpt_epoch=flags.ckpt_epoch, all_sizes=True)
    zoo = load_zoo(config)
    split, consensus = draw_split(zoo, config, flags.seed), Consensus(zoo.spec)
    tests = seconds_of(lambda: consensus.fit(zoo, split.train, flags.seed))

    def read() -> None:
        consensus.fit(zoo, split.train, flags.seed, are_loaded=True)
        for side in (split.train, split.validation, split.test):
            features_of_checkpoints("consensus", zoo, side, consensus)

    reading = [seconds_of(read) for _ in range(flags.rounds)]
    print(f"{len(zoo)} networks, {threads} threads, torch {torch.__version__}; seconds, of {flags.rounds} rounds\n")
    print("| what | by the clock | of processors |\n| --- | --- | --- |")
    print(f"| votes and tests, once | {tests[0]:.1f} | {tests[1]:.1f} |")
    clock, processors = zip(*reading, strict=True)
    print(f"| votes and features | {spread(clock)} | {spread(processors)} |")


if __name__ == "__main__":
    main()
