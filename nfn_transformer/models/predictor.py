"""The predictor of accuracy: branches side by side, concatenated, Linear -> 1 -> sigmoid; or an ensemble of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nfn_transformer.features.blocks import BlockFeatures
from nfn_transformer.features.invariants import Invariants
from nfn_transformer.hashing import derive_keys, splitmix64
from nfn_transformer.layers.dropout import number_dropouts
from nfn_transformer.layers.scaling import Reiterable
from nfn_transformer.models.branch import Branch
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.registry import ROLES
from nfn_transformer.seeding import derive_seed
from nfn_transformer.weights.containers import FeedForwardWeights, TensorTree, TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec


@dataclass(frozen=True)
class Features(TensorTree):
    """What each branch of a predictor sees of b networks, tensors [b, ...]; None where there is no such branch.

    `network` [b], int64, are numbers that tell a zoo's networks apart, by which dropout chooses; None outside training.
    """

    encoder: tuple[BlockFeatures, ...] | Invariants | Tensor | None
    classifier: FeedForwardWeights | Tensor | None
    embedding: Tensor | None
    network: Tensor | None = None

    def of_networks(self, network: Tensor) -> "Features":
        """The same with the networks' numbers."""
        return replace(self, network=network)


class Predictor(nn.Module):
    """What a predictor of accuracy and an ensemble of them share.

    Attributes: spec, sizes of the networks that it learns from; config, of branches and widths.
    """

    spec: TransformerSpec
    config: ModelConfig

    def featurize(self, weights: TransformerWeights) -> Features:
        """What the branches see of the weights, made by no parameter: once for a network, not in every epoch.

        Raises:
            SpecError: the weights have sizes that it does not read.
        """
        raise NotImplementedError

    def supports(self, spec: TransformerSpec) -> bool:
        """Whether it reads networks of these sizes: those that it was made for, and others where all branches do."""
        raise NotImplementedError

    @property
    def is_slow_to_featurize(self) -> bool:
        """Whether `featurize` takes long, so that its features are better kept than made again."""
        raise NotImplementedError

    @property
    def needs_normalization(self) -> bool:
        """Whether `fit_normalization` is to be called before the first epoch."""
        raise NotImplementedError

    def fit_normalization(self, seen: Iterable[Features]) -> None:
        """Take the scales of inputs, where this model standardises any, from the training split's networks.

        `seen` is gone through several times.
        """
        raise NotImplementedError

    def begin_epoch(self, key: int) -> None:
        """Let dropout choose by a 63-bit number, that of a run and an epoch."""
        raise NotImplementedError

    def from_features(self, features: Features) -> Tensor:
        """The logit of the predicted accuracy, [b], from what `featurize` gave for b networks."""
        raise NotImplementedError

    def forward(self, weights: TransformerWeights) -> Tensor:
        """The logit of the predicted accuracy, [b].

        Raises:
            SpecError: the weights have sizes that it does not read.
        """
        return self.from_features(self.featurize(weights))

    def predict(self, weights: TransformerWeights) -> Tensor:
        """The predicted accuracy in (0, 1), [b].

        Raises:
            SpecError: the weights have sizes that it does not read.
        """
        return self(weights).sigmoid()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


class AccuracyPredictor(Predictor):
    """Weights of transformers of one spec to their predicted accuracy (arXiv 2410.04209, section 6).

    Args:
        spec: sizes of the networks that it learns from.
        config: the branches and their widths; that of one predictor, whatever it says of an ensemble.
    """

    def __init__(self, spec: TransformerSpec, config: ModelConfig):
        super().__init__()
        self.spec, self.config = spec, config
        self.branches: dict[str, Branch] = {}
        outputs = 0
        for role, entry in config.chosen.items():
            settings = config.branch_config(role)
            self.branches[role.name] = entry.build(spec, settings)
            outputs += settings.outputs
        self.encoder, self.classifier, self.embedding = (self.branches.get(role.name) for role in ROLES)
        self.output = nn.Linear(outputs, 1)
        number_dropouts(self)
        self.register_buffer("epoch_key", torch.zeros((), dtype=torch.int64), persistent=False)

    def featurize(self, weights: TransformerWeights) -> Features:
        """See `Predictor`."""
        spec = weights.spec
        weights.check(spec if self.supports(spec) else self.spec)
        none = Features(None, None, None)
        return replace(none, **{name: branch.featurize(weights) for name, branch in self.branches.items()})

    def supports(self, spec: TransformerSpec) -> bool:
        """See `Predictor`."""
        return spec == self.spec or all(branch.supports(spec) for branch in self.branches.values())

    @property
    def is_slow_to_featurize(self) -> bool:
        """See `Predictor`."""
        return any(branch.is_slow_to_featurize for branch in self.branches.values())

    @property
    def needs_normalization(self) -> bool:
        """See `Predictor`."""
        return any(branch.needs_normalization for branch in self.branches.values())

    def fit_normalization(self, seen: Iterable[Features]) -> None:
        """See `Predictor`."""
        for name, branch in self.branches.items():
            if branch.needs_normalization:
                branch.fit_normalization(Reiterable(lambda name=name: (getattr(features, name) for features in seen)))

    def begin_epoch(self, key: int) -> None:
        """See `Predictor`."""
        self.epoch_key.fill_(key)

    def from_features(self, features: Features) -> Tensor:
        """See `Predictor`."""
        keys = None
        if self.training and self.config.dropout and features.network is not None:
            keys = splitmix64(derive_keys(self.epoch_key, features.network))
        parts = [branch.from_features(getattr(features, name), keys) for name, branch in self.branches.items()]
        return self.output(torch.cat(parts, dim=1)).squeeze(1)


class Ensemble(Predictor):
    """Predictors that learn side by side on the same batches, each as it would alone; their logits are averaged.

    Args:
        members: at least one, of one configuration.
    """

    def __init__(self, members: Sequence[AccuracyPredictor]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.spec, self.config = members[0].spec, members[0].config

    def featurize(self, weights: TransformerWeights) -> Features:
        """See `Predictor`; all members see the same."""
        return self.members[0].featurize(weights)

    def supports(self, spec: TransformerSpec) -> bool:
        """See `Predictor`."""
        return self.members[0].supports(spec)

    @property
    def is_slow_to_featurize(self) -> bool:
        """See `Predictor`."""
        return self.members[0].is_slow_to_featurize

    @property
    def needs_normalization(self) -> bool:
        """See `Predictor`."""
        return self.members[0].needs_normalization

    def fit_normalization(self, seen: Iterable[Features]) -> None:
        """See `Predictor`."""
        first, *others = self.members
        first.fit_normalization(seen)
        for member in others:
            for own, learned in zip(member.buffers(), first.buffers(), strict=True):
                own.copy_(learned)

    def begin_epoch(self, key: int) -> None:
        """See `Predictor`; the first member drops what it would drop alone, the others choose otherwise."""
        for place, member in enumerate(self.members):
            member.begin_epoch(derive_seed(key, "member", place) if place else key)

    def from_features(self, features: Features) -> Tensor:
        """The mean logit of the members, [b]; in training the logits of each, [members, b]."""
        logits = torch.stack([member.from_features(features) for member in self.members])
        return logits if self.training else logits.mean(0)


def build_predictor(spec: TransformerSpec, config: ModelConfig, seed: int) -> AccuracyPredictor | Ensemble:
    """A predictor, or an ensemble of them, on the CPU; the initial parameters depend on `seed` alone.

    The first member of an ensemble is the predictor that there would be without the others.
    """
    members = []
    for place in range(config.ensemble):
        purpose = ("parameters", place) if place else ("parameters",)
        with torch.random.fork_rng(devices=[]):  # PyTorch's own layers draw from the global stream
            torch.manual_seed(derive_seed(seed, *purpose))
            members.append(AccuracyPredictor(spec, config))
    return members[0] if config.ensemble == 1 else Ensemble(members)
