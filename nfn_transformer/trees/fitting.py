"""What fitting a tree model takes and gives, whichever library does it."""

from dataclasses import dataclass
from typing import Protocol

from numpy import ndarray

from nfn_transformer.trees.config import BoostingConfig, TreeConfig


@dataclass(frozen=True)
class Settings:
    """What decides a fit besides its data.

    Fields: config, the library's parameters; boosting, how many rounds; seed, in [0, 2**31), of the draws of rows and
    columns; threads, of the CPU; device, cpu, cuda or cuda:N.
    """

    config: TreeConfig
    boosting: BoostingConfig
    seed: int
    threads: int
    device: str


@dataclass
class Sides:
    """What a tree model is fitted on: features of networks [n, numbers] float32 and their accuracies [n].

    Fitting sets `train` and `validation` to None as soon as it has its own, smaller form of them.
    """

    train: ndarray | None
    train_labels: ndarray
    validation: ndarray | None
    validation_labels: ndarray


class Observer(Protocol):
    """Who follows the rounds of a fit, and knows which is the best."""

    def finish_round(self, train_loss: float, predictions: ndarray) -> tuple[bool, bool]:
        """A round is done.

        Args:
            train_loss: root mean squared error on the training side.
            predictions: of the validation side, [n].

        Returns:
            Whether the round is the best so far, and whether it shall be the last.
        """


class TreeModel(Protocol):
    """Fitted trees."""

    @property
    def content(self) -> bytes:
        """The model as its library writes it."""

    @property
    def trees(self) -> int:
        """The number of trees."""

    def predict(self, inputs: ndarray) -> ndarray:
        """Predicted accuracies [n], float32 or float64, of networks' features [n, numbers]; they may leave [0, 1]."""
