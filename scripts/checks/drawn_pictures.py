"""Classify the pictures that a zoo's INRs draw by a support vector machine, on the splits that runs of the seeds have.

    python scripts/checks/drawn_pictures.py --data_path data/digit_sirens.zip --dataset digits --pixels 8

The validation side chooses C. The accuracy on the test side is what a predictor can reach that draws each picture.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from sklearn.svm import SVC

from nfn_transformer import NetworkWeights, UserError, draw_pictures
from nfn_transformer.cli.command_line import number_in, run_command, seed_list
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import draw_split, load_zoo

_BATCH = 256


def main(arguments: Sequence[str]) -> int:
    """Print the accuracy of each seed, and their mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, help="folder or archive of the zoo")
    parser.add_argument("--dataset", required=True, help="name of its data set")
    parser.add_argument("--pixels", type=number_in(int, 2), required=True, help="side of the drawn pictures")
    parser.add_argument("--label_column", help="column of the classes")
    parser.add_argument("--seeds", type=seed_list, default=[1, 2, 3], help="seeds of the splits")
    flags = parser.parse_args(arguments)
    config = DataConfig(flags.dataset, str(flags.data_path), label_column=flags.label_column, task="classify")
    zoo = load_zoo(config)
    pictures = []
    for index in torch.arange(len(zoo)).split(_BATCH):
        weights = zoo.weights(index)
        if not isinstance(weights, NetworkWeights) or zoo.spec.sizes[0] != 2:
            raise UserError(f"{flags.data_path}: expected networks from two coordinates, got {zoo.spec}")
        pictures.append(draw_pictures(weights, flags.pixels).flatten(1))
    X, y = torch.cat(pictures).numpy(), zoo.labels.long().numpy()
    accuracies = []
    for seed in flags.seeds:
        split = draw_split(zoo, config, seed)
        train, validation, test = (side.numpy() for side in (split.train, split.validation, split.test))
        machines = [SVC(C=C).fit(X[train], y[train]) for C in (1, 10, 100)]
        best = max(machines, key=lambda machine: machine.score(X[validation], y[validation]))
        accuracies.append(float(best.score(X[test], y[test])))
        print(f"seed {seed}: C = {best.C}, test accuracy {accuracies[-1]:.4f} ({len(test)} networks)", flush=True)
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(f"support vector machine on drawn pictures: {statistics.mean(accuracies):.4f} ± {deviation:.4f}")
    return 0


if __name__ == "__main__":
    run_command(main)
