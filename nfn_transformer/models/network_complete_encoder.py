"""Encoder of feed-forward networks that is invariant to their whole group (`features.network_invariants`)."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from nfn_transformer.features.network_invariants import (
    COORDINATES,
    NetworkInvariants,
    count_network_invariants,
    is_field,
    read_network_invariants,
)
from nfn_transformer.layers.scaling import Reiterable
from nfn_transformer.models.branch import Chain, dropouts
from nfn_transformer.models.complete_encoder import WIDTH, InvariantsEncoder
from nfn_transformer.models.consensus import Consensus
from nfn_transformer.models.encoders.complete import CompleteConfig
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.spec import NetworkSpec

_PICTURE_CHANNELS = (16, 32, 64)
_SIDE = 4
_LEAST_DEVIATION = 0.01


class NetworkCompleteEncoder(InvariantsEncoder):
    """Map of feed-forward networks of any depth and width to numbers [b, outputs] that their group leaves unchanged.

    An INR's picture is read besides, by convolutions where it has two coordinates. It is the function itself, and so
    the strongest invariant.

    Args:
        spec: of the networks. The parameters' shapes depend on the kind of signals that it reads. For an INR they
            depend on the count of coordinates and outputs too.
        config: number of outputs, dropout, and whether answers are read.

    Raises:
        SpecError: the networks have no hidden layer, or no image has the size that flattened maps need.
    """

    level: Tensor

    def __init__(self, spec: NetworkSpec, config: CompleteConfig):
        layer, rest = count_network_invariants(spec)
        consensus = Consensus(spec) if config.consensus else None
        super().__init__(layer, rest if config.draws else 1, config, consensus)
        self.spec, self._draws = spec, config.draws
        self.picture = _build_picture(spec, config) if config.draws and is_field(spec) else None
        self.register_buffer("level", torch.tensor([0.0, 1.0]))  # mean and deviation of the values of INRs

    def featurize(self, weights: NetworkWeights, networks: Tensor | None = None) -> NetworkInvariants:
        """Return the invariants of b networks; with a consensus those of the answers include their agreement."""
        invariants = read_network_invariants(weights)
        if not self._draws:
            invariants = replace(invariants, rest=torch.zeros_like(invariants.rest[:, :1]), drawn=None)
        return self.with_agreement(invariants, weights, networks)

    def supports(self, spec: NetworkSpec) -> bool:
        """Return whether networks of other sizes have invariants that mean the same."""
        own = self.spec
        if not isinstance(spec, NetworkSpec) or spec.layers < 2:
            return False
        if count_network_invariants(spec) != count_network_invariants(own):
            return False
        if self.consensus is not None and not self.consensus.supports(spec):
            return False
        return not is_field(own) or (spec.sizes[0], spec.sizes[-1]) == (own.sizes[0], own.sizes[-1])

    def fit_normalization(self, seen: Iterable[NetworkInvariants]) -> None:
        """Fit the scales of all invariants to the training split; all values of INRs share one."""
        self.fit_to(
            Reiterable(lambda: (part.layers for part in seen)), Reiterable(lambda: (part.rest for part in seen))
        )
        if self.picture is not None:
            sums = torch.zeros(3, dtype=torch.float64, device=self.level.device)
            for values in (part.drawn.double() for part in seen if part.drawn is not None):
                sums += torch.stack([values.sum(), values.square().sum(), torch.ones_like(values).sum()])
            mean, square = sums[:2] / sums[2]
            deviation = (square - mean.square()).clamp(min=0).sqrt().clamp(min=_LEAST_DEVIATION)
            self.level.copy_(torch.stack([mean, deviation]))

    def from_features(self, features: NetworkInvariants, keys: Tensor | None = None) -> Tensor:
        """Map invariants to [b, outputs]; layers that a network does not have are NaN."""
        outputs = self.pooled(features.layers, features.rest, keys)
        if self.picture is None or features.drawn is None:
            return outputs
        mean, deviation = self.level
        return outputs + self.picture((features.drawn - mean) / deviation, keys)


def _build_picture(spec: NetworkSpec, config: CompleteConfig) -> Chain:
    """Return the map of an INR's values [b, points] to [b, outputs]."""
    count, outputs = COORDINATES[spec.sizes[0]], spec.sizes[-1]
    if spec.sizes[0] != 2:
        hidden = nn.Linear(count ** spec.sizes[0] * outputs, WIDTH)
        return Chain(hidden, nn.GELU(), *dropouts(config.dropout), nn.Linear(WIDTH, config.outputs))
    layers: list[nn.Module] = [nn.Unflatten(1, (outputs, count, count))]
    for d, e in zip((outputs, *_PICTURE_CHANNELS), _PICTURE_CHANNELS, strict=False):
        layers += [nn.Conv2d(d, e, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)]
    last = nn.Linear(_PICTURE_CHANNELS[-1] * _SIDE * _SIDE, WIDTH)
    readout = [last, nn.GELU(), *dropouts(config.dropout), nn.Linear(WIDTH, config.outputs)]
    return Chain(*layers, nn.Flatten(), *dropouts(config.dropout), *readout)
