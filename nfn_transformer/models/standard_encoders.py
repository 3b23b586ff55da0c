"""Encoders of standard transformers that are invariant to their whole group (`groups.standard_transformer`)."""

from collections.abc import Iterable

from torch import Tensor

from nfn_transformer.features.standard_invariants import (
    StandardInvariants,
    read_standard_invariants,
    standard_invariant_names,
)
from nfn_transformer.features.standard_products import read_standard_products, standard_product_names
from nfn_transformer.layers.scaling import Reiterable
from nfn_transformer.models.complete_encoder import InvariantsEncoder
from nfn_transformer.models.consensus import Consensus
from nfn_transformer.models.encoders.complete import CompleteConfig
from nfn_transformer.models.registry import BranchConfig
from nfn_transformer.weights.standard_containers import StandardTransformerWeights
from nfn_transformer.weights.standard_spec import StandardTransformerSpec


class StandardEncoder(InvariantsEncoder):
    """Base of encoders that read a row of numbers for each block, and one for the rest.

    Args:
        spec: of the networks.
        names: of the numbers of a block, and of the rest.
        config: number of outputs, and dropout.
        consensus: see `InvariantsEncoder`.
    """

    def __init__(
        self,
        spec: StandardTransformerSpec,
        names: tuple[list[str], list[str]],
        config: BranchConfig,
        consensus: Consensus | None = None,
    ):
        super().__init__(len(names[0]), len(names[1]), config, consensus)
        self.spec = spec

    def fit_normalization(self, seen: Iterable[StandardInvariants]) -> None:
        """Fit the scales of all numbers to the training split; blocks share a scale."""
        parts = Reiterable(lambda: (part.blocks for part in seen)), Reiterable(lambda: (part.rest for part in seen))
        self.fit_to(*parts)

    def from_features(self, features: StandardInvariants, keys: Tensor | None = None) -> Tensor:
        """Map numbers to [b, outputs]; blocks that a network does not have are NaN."""
        return self.pooled(features.blocks, features.rest, keys)


class StandardCompleteEncoder(StandardEncoder):
    """Map of standard transformers of any depth and width to numbers [b, outputs], by signals that go through them.

    Args:
        spec: of the networks. Shapes of parameters depend on their kind of inputs alone.
        config: see `StandardEncoder`; and whether there is a consensus.

    Raises:
        SpecError: there is a consensus, and the networks are no classifiers.
    """

    def __init__(self, spec: StandardTransformerSpec, config: CompleteConfig):
        consensus = Consensus(spec) if config.consensus else None
        super().__init__(spec, standard_invariant_names(spec), config, consensus)

    def featurize(self, weights: StandardTransformerWeights, networks: Tensor | None = None) -> StandardInvariants:
        """Return the invariants of b networks; with a consensus those of the answers include their agreement."""
        return self.with_agreement(read_standard_invariants(weights), weights, networks)

    def supports(self, spec: object) -> bool:
        """Return whether networks of other sizes read the same kind of inputs; with a consensus the same inputs."""
        if not isinstance(spec, StandardTransformerSpec) or spec.inputs != self.spec.inputs:
            return False
        return self.consensus is None or self.consensus.supports(spec)


class ProductsEncoder(StandardEncoder):
    """Map of standard transformers of any kind and size to numbers [b, outputs], by products of their weights.

    Args:
        spec: of the networks. No parameter's shape depends on it.
        config: see `StandardEncoder`.
    """

    def __init__(self, spec: StandardTransformerSpec, config: BranchConfig):
        super().__init__(spec, standard_product_names(), config)

    def featurize(self, weights: StandardTransformerWeights) -> StandardInvariants:
        """Return the numbers of b networks."""
        return read_standard_products(weights)

    def supports(self, spec: object) -> bool:
        """Return whether the networks are standard transformers."""
        return isinstance(spec, StandardTransformerSpec)
