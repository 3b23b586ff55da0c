"""Rank a zoo's CNNs by their accuracy on fresh labelled images: what one gets who holds the task's images.

    python scripts/checks/fresh_images.py --data_path data/mnist_cnns.zip --dataset mnist --images mnist/ --skip 2500

Labels are accuracies on the first test images, which --skip leaves out. Kendall's tau on the test side of each seed's
split is the ceiling of sampling. Beside it stands the ceiling of ties: the labels against themselves, ties broken at
random.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer import MixedZoo, NetworkWeights, UserError, Zoo, kendall_tau, make_generator, network_outputs
from nfn_transformer.cli.command_line import number_in, run_command, seed_list
from nfn_transformer.generation.images import read_idx_folder
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import draw_split, load_zoo

_NETWORKS, _IMAGES, _DRAWS = 32, 500, 20


def main(arguments: Sequence[str]) -> int:
    """Print both ceilings of each seed, and their means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, help="folder or archive of the zoo")
    parser.add_argument("--dataset", default="mnist", help="name of its data set")
    parser.add_argument("--images", type=Path, required=True, help="folder with the idx files")
    parser.add_argument("--skip", type=number_in(int, 0), default=2500, help="first test images that labels are of")
    parser.add_argument("--take", type=number_in(int, 1), default=2500, help="test images after these")
    parser.add_argument("--where", default="", help="see main.py")
    parser.add_argument("--seeds", type=seed_list, default=[1, 2, 3], help="seeds of the splits")
    flags = parser.parse_args(arguments)
    config = DataConfig(flags.dataset, str(flags.data_path), where=flags.where, all_sizes=True)
    zoo = load_zoo(config)
    test = read_idx_folder(flags.images).test
    fresh = slice(flags.skip, flags.skip + flags.take)
    accuracies = _accuracies(zoo, test.inputs[fresh], test.labels[fresh])
    taus: dict[str, list[float]] = {"fresh images": [], "ties": []}
    for seed in flags.seeds:
        index, generator = draw_split(zoo, config, seed).test, make_generator(seed, "ties")
        labels = zoo.labels[index].double()
        taus["fresh images"].append(kendall_tau(accuracies[index], labels))
        # Labels are counts: what is added is far below their steps.
        broken = [labels + 1e-9 * torch.rand(labels.shape, generator=generator).double() for _ in range(_DRAWS)]
        taus["ties"].append(statistics.mean(kendall_tau(each, labels) for each in broken))
        print(f"seed {seed}: {', '.join(f'{name} {of_name[-1]:.4f}' for name, of_name in taus.items())}", flush=True)
    for name, of_name in taus.items():
        deviation = statistics.stdev(of_name) if len(of_name) > 1 else 0.0
        print(f"ceiling of {name}: tau {statistics.mean(of_name):.4f} ± {deviation:.4f}")
    return 0


def _accuracies(zoo: Zoo | MixedZoo, images: Tensor, labels: Tensor) -> Tensor:
    """Return the accuracy [n] of each network on images.

    Raises:
        UserError: the networks are no feed-forward networks.
    """
    found = torch.empty(len(zoo), dtype=torch.float64)
    for index in torch.arange(len(zoo)).split(_NETWORKS):
        for positions, rows, of_size in zoo.by_size(index):
            weights = of_size.weights_of(rows)
            if not isinstance(weights, NetworkWeights):
                raise UserError(f"expected CNNs or MLPs, got networks of family {of_size.spec.family}")
            right = [
                (network_outputs(part, weights).argmax(-1) == of_part).double().sum(1)
                for part, of_part in zip(images.split(_IMAGES), labels.split(_IMAGES), strict=True)
            ]
            found[index[positions]] = torch.stack(right).sum(0) / len(labels)
    return found


if __name__ == "__main__":
    run_command(main)
