"""Predictor: branches side by side, concatenated, then Linear to one or more outputs; or an ensemble of predictors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pkgutil import resolve_name
from typing import Any, cast

import torch
from torch import Tensor, nn

from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import AnySpec
from nfn_transformer.features.blocks import BlockFeatures
from nfn_transformer.hashing import derive_keys, splitmix64
from nfn_transformer.layers.scaling import Reiterable
from nfn_transformer.models.branch import Branch, Dropout
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.consensus import Consensus
from nfn_transformer.models.registry import ROLES
from nfn_transformer.seeding import derive_seed
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import FeedForwardWeights, TensorTree


@dataclass(frozen=True)
class Features(TensorTree):
    """Features of b networks, tensors [b, ...], branch by branch; None where a predictor has no such branch."""

    encoder: tuple[BlockFeatures, ...] | TensorTree | Tensor | None
    classifier: FeedForwardWeights | Tensor | None
    embedding: Tensor | None
    network: Tensor | None = None
    """Indices [b], int64, of the networks in their zoo, which key the dropout; None outside of training."""


class Predictor(nn.Module):
    """Base of a predictor and of an ensemble of predictors; without a task its outputs are logits of accuracies."""

    spec: AnySpec
    """Sizes of the networks of the training split."""
    config: ModelConfig
    """Branches and widths."""
    is_slow_to_featurize: bool
    """True if `featurize` takes long, so that features are better kept than made again."""
    needs_normalization: bool
    """True if `fit_normalization` must be called before the first epoch."""
    needs_consensus: bool = False
    """True if `consensus` must be fitted before the features of the training side are read."""
    to_predictions: Callable[[Tensor], Tensor] = staticmethod(torch.sigmoid)
    """From outputs to the task's predictions; of a predictor without a task, from logits to accuracies."""

    def featurize(self, weights: Weights, networks: Tensor | None = None) -> Features:
        """Return the branches' features of the weights, which depend on no parameter.

        Args:
            weights: of b networks.
            networks: indices [b] in the zoo that the consensus was fitted to; None for networks outside of it.

        Raises:
            SpecError: the weights have sizes that the predictor does not read.
        """
        raise NotImplementedError

    def supports(self, spec: AnySpec) -> bool:
        """Return whether the predictor reads networks of these sizes: its own, and others if all branches do."""
        raise NotImplementedError

    def fit_normalization(self, seen: Iterable[Features]) -> None:
        """Fit the scales of standardised inputs to the training split's features.

        `seen` is iterated several times.
        """
        raise NotImplementedError

    def begin_epoch(self, key: int) -> None:
        """Set the key of dropout, a 63-bit number of a run and an epoch."""
        raise NotImplementedError

    def from_features(self, features: Features) -> Tensor:
        """Return the outputs from the features of b networks: [b], or [b, outputs] where there are several."""
        raise NotImplementedError

    def forward(self, weights: Weights) -> Tensor:
        """Return the outputs [b], logits of accuracies, or [b, outputs] of another task.

        Raises:
            SpecError: the weights have sizes that the predictor does not read.
        """
        return self.from_features(self.featurize(weights))

    def predict(self, weights: Weights) -> Tensor:
        """Return the predictions of b networks, as their task has them: of accuracies [b] in (0, 1).

        Raises:
            SpecError: the weights have sizes that the predictor does not read.
        """
        return self.to_predictions(self(weights))

    @property
    def consensus(self) -> Consensus | None:
        """Return the consensus that a branch reads, if there is one."""
        modules = (module for module in self.modules() if isinstance(module, Consensus))
        return next(modules, None)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device


class SinglePredictor(Predictor):
    """Predictor of one member: branches, concatenated, and a Linear (arXiv 2410.04209, section 6).

    Args:
        spec: sizes of the networks of the training split.
        config: branches and their widths; the size of an ensemble is ignored.
        outputs: numbers that a task wants of each network.
    """

    epoch_key: Tensor

    def __init__(self, spec: AnySpec, config: ModelConfig, outputs: int = 1):
        super().__init__()
        self.spec, self.config = spec, config
        self.branches: dict[str, Branch] = {}
        inputs = 0
        for role, entry in config.chosen.items():
            settings = config.branch_config(role)
            build: Any = entry.builds.get(spec.family, entry.build)
            self.branches[role.name] = (resolve_name(build) if isinstance(build, str) else build)(spec, settings)
            inputs += settings.outputs
        self.encoder, self.classifier, self.embedding = (self.branches.get(role.name) for role in ROLES)
        self.is_slow_to_featurize = any(branch.is_slow_to_featurize for branch in self.branches.values())
        self.needs_normalization = any(branch.needs_normalization for branch in self.branches.values())
        self.needs_consensus = any(branch.needs_consensus for branch in self.branches.values())
        self.output = nn.Linear(inputs, outputs)
        # Each dropout drops other numbers than the others.
        for number, dropout in enumerate(module for module in self.modules() if isinstance(module, Dropout)):
            dropout.number = number
        self.register_buffer("epoch_key", torch.zeros((), dtype=torch.int64), persistent=False)

    def featurize(self, weights: Weights, networks: Tensor | None = None) -> Features:
        """See `Predictor`."""
        try:
            weights.check(self.spec)
        except SpecError:
            weights.check(weights.spec if self.supports(weights.spec) else self.spec)
        none = Features(None, None, None)
        parts: dict[str, Any] = {}
        for name, branch in self.branches.items():
            known = (networks,) if branch.needs_consensus else ()
            parts[name] = branch.featurize(weights, *known)
        return replace(none, **parts)

    def supports(self, spec: AnySpec) -> bool:
        """See `Predictor`."""
        return spec == self.spec or all(branch.supports(spec) for branch in self.branches.values())

    def fit_normalization(self, seen: Iterable[Features]) -> None:
        """See `Predictor`."""
        for name, branch in self.branches.items():
            if branch.needs_normalization:
                branch.fit_normalization(Reiterable(partial(_of_branch, seen, name)))

    def begin_epoch(self, key: int) -> None:
        """See `Predictor`."""
        self.epoch_key.fill_(key)

    def from_features(self, features: Features) -> Tensor:
        """See `Predictor`."""
        keys = None
        if self.training and self.config.dropout and features.network is not None:
            keys = splitmix64(derive_keys(self.epoch_key, features.network))
        parts = [branch.from_features(getattr(features, name), keys) for name, branch in self.branches.items()]
        outputs = self.output(torch.cat(parts, dim=1))  # [b, outputs]
        return outputs.squeeze(1) if outputs.shape[1] == 1 else outputs


def _of_branch(seen: Iterable[Features], name: str) -> Iterator:
    return (getattr(features, name) for features in seen)


class Ensemble(Predictor):
    """Predictors that learn side by side on the same batches, each as it would alone; their outputs are averaged.

    Args:
        members: at least one, of one configuration.
    """

    def __init__(self, members: Sequence[Predictor]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.spec, self.config = members[0].spec, members[0].config
        self.is_slow_to_featurize = members[0].is_slow_to_featurize
        self.needs_normalization = members[0].needs_normalization
        self.needs_consensus = members[0].needs_consensus
        if self.needs_consensus:  # the first member reads the networks for all
            for module in self.members[1:].modules():
                if isinstance(module, Branch) and module.needs_consensus:
                    module.consensus = None

    @property
    def _first(self) -> Predictor:
        return cast(Predictor, self.members[0])

    def featurize(self, weights: Weights, networks: Tensor | None = None) -> Features:
        """See `Predictor`; all members read the same features."""
        return self._first.featurize(weights, networks)

    def supports(self, spec: AnySpec) -> bool:
        """See `Predictor`."""
        return self._first.supports(spec)

    def fit_normalization(self, seen: Iterable[Features]) -> None:
        """See `Predictor`."""
        self._first.fit_normalization(seen)
        fitted = dict(self._first.named_buffers())
        for member in self.members[1:]:
            for name, own in member.named_buffers():
                own.copy_(fitted[name])

    def begin_epoch(self, key: int) -> None:
        """Set the keys of dropout: the first member's as that of a predictor alone, the others' derived from it."""
        for index, member in enumerate(self.members):
            cast(Predictor, member).begin_epoch(derive_seed(key, "member", index) if index else key)

    def from_features(self, features: Features) -> Tensor:
        """Return the members' mean outputs [b] or [b, outputs]; in training those of each, [members, b, ...]."""
        outputs = torch.stack([cast(Predictor, member).from_features(features) for member in self.members])
        return outputs if self.training else outputs.mean(0)


def build_predictor(
    spec: AnySpec, config: ModelConfig, seed: int, outputs: int = 1, kind: Callable[..., Predictor] = SinglePredictor
) -> Predictor:
    """Return a predictor or an ensemble on the CPU, whose initial parameters depend on `seed` alone.

    ```python
    config = nfn.ModelConfig.from_flags({"enc_mode": "inv"})
    model = nfn.build_predictor(zoo.spec, config, seed=0)  # an nn.Module that is not trained
    predicted = model.predict(zoo.weights(torch.arange(8)))  # [8]
    ```

    The first member of an ensemble is the predictor that `ensemble` 1 gives. A task may want several
    `outputs`, or another `kind` of predictor.
    """
    members = []
    for index in range(config.ensemble):
        purpose = ("parameters", index) if index else ("parameters",)
        with torch.random.fork_rng(devices=[]):  # PyTorch's own layers draw from the global stream
            torch.manual_seed(derive_seed(seed, *purpose))
            members.append(kind(spec, config, outputs))
    return members[0] if config.ensemble == 1 else Ensemble(members)
