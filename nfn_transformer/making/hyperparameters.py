"""The hyperparameters that runs of a zoo differ in, and their seeded draw from grids."""

from dataclasses import dataclass

import torch

from nfn_transformer.seeding import stream

LEARNING_RATES: dict[str, tuple[float, ...]] = {
    "sgd": (0.03, 0.05, 0.07, 0.1, 0.2, 0.3),
    "sgd_momentum": (0.003, 0.005, 0.007, 0.01, 0.02, 0.03),
    "adam": (0.0003, 0.001, 0.003, 0.005, 0.007, 0.01),
    "rmsprop": (0.0003, 0.001, 0.003, 0.005, 0.007, 0.01),
}
"""Optimizer -> the learning rates that it is drawn with."""

W_INIT_STDS = (0.15, 0.2, 0.3, 0.4, 0.5)
L2_REGULARIZERS = (1e-8, 1e-7, 1e-6, 1e-4, 1e-3)
TRAIN_FRACTIONS = (0.7, 0.8, 0.9, 1.0)
DROPOUTS = (0.0, 0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True)
class Hyperparameters:
    """One run's optimizer, initialisation and regularisation, under the names of the release's metadata."""

    optimizer: str
    w_init_std: float
    l2_regularize: float
    train_fraction: float
    dropout: float
    lr: float


def draw_hyperparameters(seed: int, run: int) -> Hyperparameters:
    """The hyperparameters of a run, each uniform over its grid; they depend on the seed and the run alone."""
    generator = stream(seed, "run", run, "hyperparameters")

    def choose(grid: tuple):
        return grid[int(torch.randint(len(grid), (), generator=generator))]

    optimizer = choose(tuple(LEARNING_RATES))
    return Hyperparameters(
        optimizer=optimizer,
        w_init_std=choose(W_INIT_STDS),
        l2_regularize=choose(L2_REGULARIZERS),
        train_fraction=choose(TRAIN_FRACTIONS),
        dropout=choose(DROPOUTS),
        lr=choose(LEARNING_RATES[optimizer]),
    )
