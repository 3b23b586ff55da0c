"""Interface of the tree libraries: what fitting takes and gives."""

from dataclasses import dataclass
from typing import Protocol

from numpy import ndarray

from nfn_transformer.trees.config import BoostingConfig, TreeConfig


@dataclass(frozen=True)
class Settings:
    """Settings of a fit, its data aside."""

    config: TreeConfig
    """Library and its parameters."""
    boosting: BoostingConfig
    """Number of rounds."""
    seed: int
    """Seed of the draws of rows and columns, in [0, 2**31)."""
    threads: int
    """Number of CPU threads."""
    device: str
    """Device: `cpu`, `cuda` or `cuda:N`."""
    of_shares: bool = False
    """True if labels are shares in [0, 1], as accuracies are."""


@dataclass
class Sides:
    """Training and validation data of a tree model.

    Fitting deletes `train` and `validation` as soon as it has a smaller form of them.
    """

    train: ndarray
    """Features of the training networks [n, numbers], float32."""
    train_labels: ndarray
    """Labels of the training networks [n], or indicators of their classes [n, classes]."""
    validation: ndarray
    """Features of the validation networks [m, numbers], float32."""
    validation_labels: ndarray
    """Labels or indicators of the validation networks, as `train_labels`."""


class Observer(Protocol):
    """Observer of the rounds of a fit, which knows the best one."""

    def finish_round(self, train_loss: float, predictions: ndarray) -> tuple[bool, bool]:
        """Record a finished round.

        Args:
            train_loss: root mean squared error on the training side.
            predictions: of the validation side, [n] or [n, classes].

        Returns:
            is_best: the round is the best so far.
            is_last: the round shall be the last.
        """


class TreeModel(Protocol):
    """Fitted trees."""

    @property
    def content(self) -> bytes:
        """Model as its library writes it."""

    @property
    def trees(self) -> int:
        """Number of trees."""

    def predict(self, inputs: ndarray) -> ndarray:
        """Predict the labels [n] of n networks from their features [n, numbers].

        Predictions are float32 or float64 and may lie outside of the labels' range.
        """
