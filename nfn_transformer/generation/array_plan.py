"""Plan of a zoo in parts: networks that train together, and the zoo that they make, an array of SIRENs or CNNs."""

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.generation.array_zoo import ArrayZoo, write_array_zoo

TrainedPart = dict[str, Tensor]
"""Results of a part's n networks by name, each with n rows."""


@dataclass(frozen=True)
class WrittenZoo:
    """Description of a zoo that was written, for the screen."""

    text: str
    """Sentence about the zoo."""
    reading: str
    """Flags with which main.py learns what the zoo is made for."""
    accuracies: Sequence[float] = ()
    """Accuracy of each checkpoint, for a histogram; perhaps none."""


class PartsPlan(ABC):
    """A whole zoo, whose networks train in parts; a subclass for each family."""

    out: Path
    """Path of the zoo."""
    half: bool
    """True if numbers are stored in half precision."""
    population: int
    """Most networks in a part."""

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
    def write(self, parts: Iterator[TrainedPart], scratch: Path, before: Callable[[], object]) -> WrittenZoo:
        """Write the zoo; it appears whole.

        Args:
            parts: results of all parts.
            scratch: an empty folder on the same file system.
            before: called when all is written, before the zoo appears at its path.
        """

    @property
    @abstractmethod
    def parts(self) -> Sequence[Sequence[int]]:
        """Numbers of the networks of each part."""

    @property
    def beside(self) -> Path | None:
        """Path of a file beside the zoo that `write` makes as well; None: there is none."""
        return None


class ArrayZooPlan(PartsPlan):
    """A whole array zoo; a subclass for each family."""

    dataset: str
    """Name of its data set."""
    reading: str
    """Flags with which main.py learns what the zoo is made for."""

    @abstractmethod
    def contents(self, part: TrainedPart) -> ArrayZoo:
        """Return the zoo of all networks from their results."""

    @abstractmethod
    def summary(self, zoo: ArrayZoo) -> str:
        """Return what was made, for the screen."""

    def write(self, parts: Iterator[TrainedPart], scratch: Path, before: Callable[[], object]) -> WrittenZoo:
        """See `PartsPlan`."""
        trained = list(parts)
        zoo = self.contents({name: torch.cat([part[name] for part in trained]) for name in trained[0]})
        write_array_zoo(zoo, self.out, self.dataset, scratch, self.half, before)
        place = f"--dataset {shlex.quote(self.dataset)} --data_path {shlex.quote(str(self.out))}"
        accuracies = [float(str(value)) for value in zoo.columns.get("test_accuracy", ())]
        return WrittenZoo(self.summary(zoo), " ".join(filter(None, (self.reading, place))), accuracies)
