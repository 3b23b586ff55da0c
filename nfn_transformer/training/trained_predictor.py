"""A trained predictor, whatever its kind: what it predicts, how that is measured, and how it is read from a run."""

from typing import Protocol

import torch
from torch import Tensor

from nfn_transformer.errors import RunError
from nfn_transformer.models.predictor import Predictor
from nfn_transformer.training.metrics import Metrics, measure_logits, measure_regression
from nfn_transformer.training.predictions import predict_logits, predict_logits_of
from nfn_transformer.trees import features as tree_features
from nfn_transformer.trees.features import features_of_checkpoints, features_of_networks
from nfn_transformer.trees.fitting import TreeModel
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.reading import Zoo


class TrainedPredictor(Protocol):
    """A trained predictor, which learned from networks with the sizes of `spec`.

    `outputs` are what the kind of predictor gives: logits or accuracies, [n] on the CPU. Attribute: size, what is
    counted of it -> how many.
    """

    spec: TransformerSpec

    @property
    def size(self) -> dict[str, int]: ...

    def supports(self, spec: TransformerSpec) -> bool:
        """Whether it can be asked about networks of these sizes."""

    def outputs(self, zoo: Zoo, index: Tensor) -> Tensor:
        """For the checkpoints that `index` [n] selects in a zoo on the CPU."""

    def outputs_of(self, weights: TransformerWeights) -> Tensor:
        """For n networks on the CPU."""

    def accuracies(self, outputs: Tensor) -> Tensor:
        """Predicted accuracies [n] in float64."""

    def measure(self, outputs: Tensor, labels: Tensor) -> Metrics:
        """Metrics against the true accuracies [n]."""


class TrainedNetwork:
    """A neural network, whose outputs are logits of accuracies."""

    def __init__(self, model: Predictor, device: torch.device):
        self.model, self.spec, self.device = model.to(device), model.spec, device

    @property
    def size(self) -> dict[str, int]:
        """The number of its parameters."""
        return {"parameters": sum(parameter.numel() for parameter in self.model.parameters())}

    def supports(self, spec: TransformerSpec) -> bool:
        """Whether it can be asked about networks of these sizes."""
        return self.model.supports(spec)

    def outputs(self, zoo: Zoo, index: Tensor) -> Tensor:
        """Logits [n] for the checkpoints that `index` [n] selects."""
        return predict_logits(self.model, zoo, index)

    def outputs_of(self, weights: TransformerWeights) -> Tensor:
        """Logits [n] for n networks on the CPU."""
        return predict_logits_of(self.model, weights, self.device)

    def accuracies(self, outputs: Tensor) -> Tensor:
        """Predicted accuracies [n] in float64, so that no two logits fall together at 0 or 1."""
        return outputs.double().sigmoid()

    def measure(self, outputs: Tensor, labels: Tensor) -> Metrics:
        """Metrics of the logits against the true accuracies [n]."""
        return measure_logits(outputs, labels)


class TrainedTrees:
    """A tree model, whose outputs are accuracies; they may leave [0, 1]."""

    def __init__(self, model: TreeModel, spec: TransformerSpec, features: str):
        self.model, self.spec, self.features = model, spec, features

    @property
    def size(self) -> dict[str, int]:
        """The number of its trees."""
        return {"trees": self.model.trees}

    def supports(self, spec: TransformerSpec) -> bool:
        """Whether it can be asked about networks of these sizes."""
        return tree_features.supports(self.features, self.spec, spec)

    def outputs(self, zoo: Zoo, index: Tensor) -> Tensor:
        """Accuracies [n] for the checkpoints that `index` [n] selects."""
        return self._predict(features_of_checkpoints(self.features, zoo, index))

    def outputs_of(self, weights: TransformerWeights) -> Tensor:
        """Accuracies [n] for n networks on the CPU.

        Raises:
            RunError: the trees read hyperparameters, which weights do not tell.
        """
        return self._predict(features_of_networks(self.features, weights))

    def _predict(self, features: Tensor) -> Tensor:
        try:
            return torch.from_numpy(self.model.predict(features.numpy()))
        except ValueError as error:  # trees of another run
            raise RunError(f"the trees do not fit the networks' features: {error}") from None

    def accuracies(self, outputs: Tensor) -> Tensor:
        """Predicted accuracies [n] in float64."""
        return outputs.double()

    def measure(self, outputs: Tensor, labels: Tensor) -> Metrics:
        """Metrics of the accuracies against the true ones [n]."""
        return measure_regression(outputs, labels)
