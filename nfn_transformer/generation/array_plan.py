"""Plan of an array zoo, of SIRENs or of CNNs: parts of networks that train together, and the zoo that they make."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.generation.array_zoo import ArrayZoo

TrainedPart = dict[str, Tensor]
"""Results of a part's n networks by name, each with n rows."""


class ArrayZooPlan(ABC):
    """A whole array zoo; a subclass for each family."""

    out: Path
    """Path of the zoo."""
    dataset: str
    """Name of its data set."""
    half: bool
    """True if numbers are stored in half precision."""
    population: int
    """Most networks in a part."""
    reading: str
    """Flags with which main.py learns what the zoo is made for."""

    @property
    @abstractmethod
    def networks(self) -> int:
        """Count of networks to train."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Text that says what is made, for the screen."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes of the zoo's weights."""

    @abstractmethod
    def configuration(self) -> dict[str, object]:
        """Return all that the networks depend on, as JSON values."""

    @abstractmethod
    def train(self, numbers: Sequence[int], device: torch.device, after: Callable[[float], object]) -> TrainedPart:
        """Train the networks of these numbers.

        Args:
            numbers: of networks.
            device: to train on.
            after: called, for progress, with the trained share of a network.
        """

    @abstractmethod
    def seconds(self, device: torch.device) -> float:
        """Return the measured seconds that one process takes for a network, at most."""

    @abstractmethod
    def listing(self) -> str:
        """Return the networks with their hyperparameters as CSV."""

    @abstractmethod
    def contents(self, part: TrainedPart) -> ArrayZoo:
        """Return the zoo of all networks from their results."""

    @abstractmethod
    def summary(self, zoo: ArrayZoo) -> str:
        """Return what was made, for the screen."""

    @property
    @abstractmethod
    def parts(self) -> Sequence[Sequence[int]]:
        """Numbers of the networks of each part."""
