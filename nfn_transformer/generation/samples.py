"""Classification tasks: labelled samples, and the logits of networks on them."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.forward import ActivationDropout, no_dropout
from nfn_transformer.weights.spec import EmbeddingSpec

MOST_CLASSES = 1000


@dataclass(frozen=True)
class LabelledSamples:
    """n samples with their classes."""

    inputs: Tensor
    """Inputs [n, ...] of the networks."""
    labels: Tensor
    """Classes [n], int64."""

    def first(self, count: int | None) -> "LabelledSamples":
        """Return the first `count` samples; None: all."""
        return self if count is None else LabelledSamples(self.inputs[:count], self.labels[:count])

    def to(self, device: torch.device) -> "LabelledSamples":
        """Return the samples on another device."""
        return LabelledSamples(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True)
class TaskData(ABC):
    """A classification task."""

    train: LabelledSamples
    """Train samples."""
    test: LabelledSamples
    """Test samples."""
    classes: int
    """Number of classes."""

    @property
    @abstractmethod
    def label_column(self) -> str:
        """The metadata's column of test accuracies in released zoos of this kind."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Precision of the networks' arithmetic."""

    @abstractmethod
    def logits(self, inputs: Tensor, weights: TransformerWeights, dropout: ActivationDropout = no_dropout) -> Tensor:
        """Return the logits [b, n, classes] of b networks on inputs [b or 1, n, ...]; dropout is for training only."""

    @abstractmethod
    def embedding(self, width: int, patch: int) -> EmbeddingSpec | None:
        """Return the spec of the networks' embedding of inputs into width D; None if networks have no embedding.

        Raises:
            UserError: inputs cannot be embedded with this width or patch size.
        """

    def shared_files(self) -> dict[str, bytes]:
        """Return the files beside the checkpoints that all networks of a zoo share: name -> content."""
        return {}

    def computed(self) -> dict[str, Tensor]:
        """Return the parts that another machine or number of threads would compute with other rounding errors.

        Keys are short names of all that a part was computed from. An unfinished zoo saves these parts.
        """
        return {}

    def limited(self, train: int | None, test: int | None) -> Self:
        """Return the task with the first samples of each part alone; None: all. The classes stay."""
        return replace(self, train=self.train.first(train), test=self.test.first(test))

    def to(self, device: torch.device) -> Self:
        """Return the task on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def digest(self) -> str:
        """Return a hash of all that networks see of the data."""
        digest = hashlib.sha256()
        for part in self._tensors():
            digest.update(f"{tuple(part.shape)}".encode())
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.train.inputs, self.train.labels, self.test.inputs, self.test.labels)
