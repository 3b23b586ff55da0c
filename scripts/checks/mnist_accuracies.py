"""Recompute the accuracies of a zoo's MNIST checkpoints by our forward pass, and compare them with its labels.

    python scripts/checks/mnist_accuracies.py --data_path data/mnist_transformer --images FOLDER --test_images 2500

FOLDER holds MNIST's four idx files (train- and t10k- images-idx3-ubyte and labels-idx1-ubyte, .gz too),
which are not bundled. Ends with exit status 1 where an accuracy differs by more than 1e-4.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from nfn_transformer import image_logits, read_zoo
from nfn_transformer.cli.command_line import number_in, run_command
from nfn_transformer.generation.images import read_idx_folder

TOLERANCE = 1e-4


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, help="folder or zip of the zoo")
    parser.add_argument("--dataset", default="mnist", help="name of its data set")
    parser.add_argument("--ckpt_epoch", default="75", help="epoch of the checkpoints")
    parser.add_argument("--images", type=Path, required=True, help="folder with the idx files")
    parser.add_argument("--test_images", type=number_in(int, 1), help="use that many of the first test images")
    flags = parser.parse_args(arguments)
    zoo = read_zoo(flags.data_path, flags.dataset, flags.ckpt_epoch)
    test = read_idx_folder(flags.images).limited(None, flags.test_images).test
    worst = 0.0
    for index, name in enumerate(zoo.names):
        with torch.inference_mode():
            predicted = image_logits(test.images[None], zoo.weights(torch.tensor([index])))[0].argmax(-1)
        accuracy, recorded = (predicted == test.labels).double().mean().item(), zoo.labels[index].item()
        worst = max(worst, abs(accuracy - recorded))
        print(f"{name}: recomputed {accuracy:.4f}, recorded {recorded:.4f}")
    print(f"{len(zoo)} checkpoints, largest difference {worst:.1e}")
    return 0 if worst <= TOLERANCE + 1e-9 else 1


if __name__ == "__main__":
    run_command(main)
