"""What populations are trained and tested on: samples with classes, and how a network of the zoo answers to them."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.forward import Dropout, no_dropout
from nfn_transformer.weights.spec import EmbeddingSpec

MOST_CLASSES = 1000


@dataclass(frozen=True)
class LabelledSamples:
    """Inputs [n, ...], as networks read them, and their classes [n], int64."""

    inputs: Tensor
    labels: Tensor

    def first(self, count: int | None) -> "LabelledSamples":
        """The first `count` samples; all of them with None."""
        return self if count is None else LabelledSamples(self.inputs[:count], self.labels[:count])

    def to(self, device: torch.device) -> "LabelledSamples":
        """The same samples on another device."""
        return LabelledSamples(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True)
class TaskData(ABC):
    """Train and test samples of one classification task, and its number of classes."""

    train: LabelledSamples
    test: LabelledSamples
    classes: int

    @property
    @abstractmethod
    def label_column(self) -> str:
        """The release's name of the test accuracy in the metadata of zoos of this kind."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of the arithmetic of networks on these samples."""

    @abstractmethod
    def logits(self, inputs: Tensor, weights: TransformerWeights, dropout: Dropout = no_dropout) -> Tensor:
        """Logits [b, n, classes] of b networks on inputs [b or 1, n, ...]; dropout is for training only."""

    @abstractmethod
    def embedding(self, width: int, patch: int) -> EmbeddingSpec | None:
        """The spec of the part of width D that networks embed inputs by; None where it is not part of them.

        Raises:
            UserError: inputs cannot be embedded so.
        """

    def shared_files(self) -> dict[str, bytes]:
        """Files beside the checkpoints that all networks of a zoo share: name -> content."""
        return {}

    def computed(self) -> dict[str, Tensor]:
        """Parts that another machine, or another number of threads, would compute a little otherwise: what they were
        computed from, as a short name, -> the tensor. A zoo in the making keeps them."""
        return {}

    def limited(self, train: int | None, test: int | None) -> Self:
        """The first samples of each part, or all of them with None; the classes stay."""
        return replace(self, train=self.train.first(train), test=self.test.first(test))

    def to(self, device: torch.device) -> Self:
        """The same data on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def digest(self) -> str:
        """A fingerprint of all that networks see of the data."""
        found = hashlib.sha256()
        for part in self._tensors():
            found.update(f"{tuple(part.shape)}".encode())
            found.update(part.contiguous().numpy())
        return found.hexdigest()

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.train.inputs, self.train.labels, self.test.inputs, self.test.labels)
