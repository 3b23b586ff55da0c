"""Features of networks for tree models: all weights, their statistics, invariants, a consensus, or hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfn_transformer.errors import RunError, SpecError, UserError, ZooError
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec, are_alike
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.zoo.metadata import ABSENT, HYPERPARAMETER_COLUMNS

if TYPE_CHECKING:  # --features needs names and help alone: what reads weights is imported where it reads them
    from torch import Tensor

    from nfn_transformer.families.registry import AnySpec
    from nfn_transformer.models.consensus import Consensus
    from nfn_transformer.weights.any_weights import Weights
    from nfn_transformer.zoo.reading import Zoo
    from nfn_transformer.zoo.several_sizes import MixedZoo

_BATCH = 256


@dataclass(frozen=True)
class TreeFeatures:
    """Features of networks that a tree model can read, chosen by --features."""

    help: str
    of_weights: Callable[[Weights], Tensor] | None
    """Features [b, numbers] of b networks; None where weights do not tell them."""
    check: Callable[[Zoo | MixedZoo, str], None] | None = None
    """Raise UserError if a zoo, of a data set's name, lacks the features."""
    supports: Callable[[AnySpec, AnySpec], bool] = lambda spec, other: spec == other or are_alike(spec, other)
    """Return whether trees fitted to networks of one spec can predict networks of another."""
    has_consensus: bool = False
    """True if numbers of a consensus stand beside them."""


def features_of_checkpoints(
    features: str, zoo: Zoo | MixedZoo, index: Tensor, consensus: Consensus | None = None
) -> Tensor:
    """Return the features [n, numbers] of the checkpoints that `index` [n] selects, see `features_of_networks`.

    Only one batch of features is ever in memory twice.

    Raises:
        ValueError: `index` is empty.
        ZooError: a network's features are beyond float32, or the zoo's metadata has no hyperparameter.
    """
    from tqdm import tqdm

    if TREE_FEATURES[features].of_weights is None:
        check_readable(features, zoo, "")
        return zoo.hyperparameters[index]
    result = None
    starts = range(0, len(index), _BATCH)
    for start in tqdm(starts, desc="reading features", unit=" batches", leave=False, disable=None):
        for places, rows, zoo_of_size in zoo.by_size(index[start : start + _BATCH]):
            part = features_of_networks(features, zoo_of_size.weights_of(rows), consensus, index[start + places])
            if result is None:
                result = part.new_empty(len(index), part.shape[1])
            result[start + places] = part
    if result is None:
        raise ValueError("no checkpoints are selected")
    infinite = (~result.isfinite().all(1)).nonzero().flatten()
    if len(infinite):
        raise ZooError(f"{zoo.names[index[infinite[0]]]}: its {features} features are beyond float32")
    return result


def features_of_networks(
    features: str, weights: Weights, consensus: Consensus | None = None, networks: Tensor | None = None
) -> Tensor:
    """Return the features [b, numbers] of b networks.

    Args:
        features: a key of TREE_FEATURES.
        weights: of the networks.
        consensus: fitted to the training side, for features that have one.
        networks: indices [b] of the networks in a zoo; see `Consensus`.

    Raises:
        RunError: the features are not read from weights.
    """
    of_weights = TREE_FEATURES[features].of_weights
    if of_weights is None:
        raise RunError(f"the predictor reads {features}, which weights do not tell; have it score a labelled zoo")
    numbers = of_weights(weights)
    if consensus is None:
        return numbers
    import torch

    return torch.cat([numbers, consensus(weights, networks)], dim=1)


def check_readable(features: str, zoo: Zoo | MixedZoo, dataset: str) -> None:
    """Raise UserError if a zoo lacks the features, by its networks' sizes or by its metadata."""
    check = TREE_FEATURES[features].check
    if check is not None:
        check(zoo, dataset)


def supports(features: str, spec: AnySpec, other: AnySpec) -> bool:
    """Return whether trees fitted to features of networks of `spec` can predict networks of `other`."""
    return TREE_FEATURES[features].supports(spec, other)


def _raw(weights: Weights) -> Tensor:
    from nfn_transformer.weights.containers import flatten_networks

    return flatten_networks(weights)


def _statistics(weights: Weights) -> Tensor:
    from nfn_transformer.features.statistics import weight_statistics

    return weight_statistics(weights.trained_parts)


def _invariants(weights: Weights) -> Tensor:
    import torch

    from nfn_transformer.features.invariants import read_invariants
    from nfn_transformer.features.network_invariants import read_network_invariants
    from nfn_transformer.features.standard_invariants import pooled_invariants, read_standard_invariants
    from nfn_transformer.weights.containers import NetworkWeights, TransformerWeights

    if isinstance(weights, TransformerWeights):
        invariants = read_invariants(weights)
        return torch.cat([invariants.blocks.flatten(1), invariants.rest], dim=1)
    if not isinstance(weights, NetworkWeights):
        return pooled_invariants(read_standard_invariants(weights))
    return torch.cat([tensor.flatten(1) for tensor in read_network_invariants(weights).tensors()], dim=1)


def _check_invariants(zoo: Zoo | MixedZoo, dataset: str) -> None:
    from nfn_transformer.features.invariants import check_has_invariants
    from nfn_transformer.features.network_invariants import count_network_invariants

    try:
        if isinstance(zoo.spec, TransformerSpec):
            check_has_invariants(zoo.spec)
        elif isinstance(zoo.spec, NetworkSpec):
            count_network_invariants(zoo.spec)
    except SpecError as error:
        raise UserError(f"--features invariants: zoo '{dataset}' has {error}") from None


def _products(weights: Weights) -> Tensor:
    from nfn_transformer.features.standard_invariants import pooled_invariants
    from nfn_transformer.features.standard_products import read_standard_products
    from nfn_transformer.weights.standard_containers import StandardTransformerWeights

    assert isinstance(weights, StandardTransformerWeights), "_check_products refuses others"
    return pooled_invariants(read_standard_products(weights))


def _check_products(zoo: Zoo | MixedZoo, dataset: str) -> None:
    if not isinstance(zoo.spec, StandardTransformerSpec):
        family = f"expected family {StandardTransformerSpec.family}"
        raise UserError(f"--features products: the networks of zoo '{dataset}' are of {zoo.spec.family}, {family}")


def _check_consensus(zoo: Zoo | MixedZoo, dataset: str) -> None:
    from nfn_transformer.features.answers import probe_inputs

    _check_invariants(zoo, dataset)
    try:
        first, *others = map(probe_inputs, zoo.specs)
    except SpecError as error:
        raise UserError(f"--features consensus: zoo '{dataset}' has {error}") from None
    if not all(map(first.is_like, others)):
        firsts = ", ".join(repr(part.names[0]) for part in getattr(zoo, "parts", ()))
        raise UserError(
            f"--features consensus: expected networks of the same classes and inputs, words included; those of zoo "
            f"'{dataset}' differ, the first of each size are {firsts}"
        )


def _have_like_invariants(spec: AnySpec, other: AnySpec) -> bool:
    from nfn_transformer.features.invariants import has_like_invariants

    if isinstance(spec, StandardTransformerSpec) and isinstance(other, StandardTransformerSpec):
        return spec.inputs == other.inputs
    if not (isinstance(spec, TransformerSpec) and isinstance(other, TransformerSpec)):
        return are_alike(spec, other)
    return len(spec.blocks) == len(other.blocks) and has_like_invariants(spec, other)


def _check_hyperparameters(zoo: Zoo | MixedZoo, dataset: str) -> None:
    if bool((zoo.hyperparameters == ABSENT).all()):
        columns = ", ".join(HYPERPARAMETER_COLUMNS)
        raise ZooError(f"--features hyperparameters: the zoo's metadata tells none of {columns}")


TREE_FEATURES: Mapping[str, TreeFeatures] = {
    "raw": TreeFeatures("flattened weights", _raw),
    "statistics": TreeFeatures("seven statistics of each weight matrix and bias", _statistics),
    "invariants": TreeFeatures(
        "invariants of whole networks, which the complete encoder reads",
        _invariants,
        check=_check_invariants,
        supports=_have_like_invariants,
    ),
    "products": TreeFeatures(
        "products of standard transformers' weights, which the products encoder reads",
        _products,
        check=_check_products,
        supports=lambda spec, other: spec.family == other.family,
    ),
    "consensus": TreeFeatures(
        "invariants, and how far answers agree with what the training side's good networks agree on",
        _invariants,
        check=_check_consensus,
        supports=_have_like_invariants,
        has_consensus=True,
    ),
    "hyperparameters": TreeFeatures(
        "the metadata's hyperparameters, and no weights",
        None,
        check=_check_hyperparameters,
        supports=lambda spec, other: True,
    ),
}
"""All features by name."""
