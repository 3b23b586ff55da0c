"""Rank a zoo's networks by their accuracy on fresh labelled images: what one gets who holds the task's images.

    python scripts/checks/fresh_images.py --data_path data/mnist_cnns.zip --dataset mnist --images mnist/ --skip 2500

Labels are accuracies on the first test images, which --skip leaves out. Kendall's tau on the test side of each seed's
split is the ceiling of sampling. Beside it stands the ceiling of ties. `main.py --ceiling_images` reports both for one
run.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from nfn_transformer import kendall_tau
from nfn_transformer.cli.command_line import number_in, run_command, seed_list
from nfn_transformer.training.ceilings import accuracies_on, fresh_images
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import draw_split, load_zoo
from nfn_transformer.training.metrics import tau_ceiling


def main(arguments: Sequence[str]) -> int:
    """Print both ceilings of each seed, and their means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, help="folder or archive of the zoo")
    parser.add_argument("--dataset", default="mnist", help="name of its data set")
    parser.add_argument("--images", type=Path, required=True, help="folder with the idx files, or an .npz")
    parser.add_argument("--skip", type=number_in(int, 0), default=2500, help="first test images that labels are of")
    parser.add_argument("--take", type=number_in(int, 1), default=2500, help="test images after these")
    parser.add_argument("--where", default="", help="see main.py")
    parser.add_argument("--seeds", type=seed_list, default=[1, 2, 3], help="seeds of the splits")
    flags = parser.parse_args(arguments)
    config = DataConfig(flags.dataset, str(flags.data_path), where=flags.where, all_sizes=True)
    zoo = load_zoo(config)
    images = fresh_images(flags.images, flags.skip).first(flags.take)
    accuracies = accuracies_on(images, zoo, torch.arange(len(zoo)), torch.device("cpu"))
    taus: dict[str, list[float]] = {"fresh images": [], "ties": []}
    for seed in flags.seeds:
        index = draw_split(zoo, config, seed).test
        labels = zoo.labels[index].double()
        taus["fresh images"].append(kendall_tau(accuracies[index], labels))
        taus["ties"].append(tau_ceiling(labels))
        print(f"seed {seed}: {', '.join(f'{name} {of_name[-1]:.4f}' for name, of_name in taus.items())}", flush=True)
    for name, of_name in taus.items():
        deviation = statistics.stdev(of_name) if len(of_name) > 1 else 0.0
        print(f"ceiling of {name}: tau {statistics.mean(of_name):.4f} ± {deviation:.4f}")
    return 0


if __name__ == "__main__":
    run_command(main)
