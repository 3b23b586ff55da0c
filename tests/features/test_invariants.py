"""Names of invariants: one for each number, in the order in which trees read them."""

from dataclasses import replace

import pytest
import torch
from symmetry import random_transformer

from nfn_transformer import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec, invariant_names, read_invariants
from nfn_transformer.features.invariants import block_invariant_names, rest_invariant_names
from nfn_transformer.features.probes import probe_tokens
from nfn_transformer.features.propagation import (
    block_invariants,
    classifier_invariants,
    normalize,
    signal_invariants,
)
from nfn_transformer.trees.features import features_of_networks

IMAGES = TransformerSpec(
    (BlockSpec(2, 6, 3, 2, 5), BlockSpec(3, 6, 2, 2, 4)), FeedForwardSpec((6, 5, 3)), EmbeddingSpec(2, 6, (2, 3), 6)
)
SPECS = pytest.mark.parametrize("spec", [IMAGES, replace(IMAGES, embedding=None)], ids=["images", "texts"])


@SPECS
def test_there_is_one_name_for_each_number(spec, generator):
    U = random_transformer(spec, 3, generator)
    names, invariants = invariant_names(spec), read_invariants(U)
    assert len(set(names)) == len(names) == features_of_networks("invariants", U).shape[1]
    assert invariants.blocks.shape == (3, 2, len(block_invariant_names(spec)))
    assert invariants.rest.shape == (3, len(rest_invariant_names(spec)))
    assert all(name.replace(".", "_").isidentifier() for name in names)


@SPECS
def test_each_number_has_its_own_name(spec, generator):
    """The numbers that trees read, recomputed family by family from the named ones of `features.propagation`."""
    U = random_transformer(spec, 3, generator)
    by_name = dict(zip(invariant_names(spec), features_of_networks("invariants", U).T, strict=True))
    families = list(dict.fromkeys(name.split(".")[0] for name in rest_invariant_names(spec)))
    assert families == (
        ["blobs4", "blobs5", "blobs7", "noise"] if spec.embedding else ["texts100", "texts60", "texts30"]
    )
    expected = {}
    for family, tokens in zip(families, probe_tokens(U, spec), strict=True):
        signal = normalize(tokens).expand(3, -1, -1, -1)
        expected |= {f"{family}.entering.{name}": numbers for name, numbers in signal_invariants(signal).items()}
        for index, block in enumerate(U.blocks):
            signal, numbers = block_invariants(signal, block)
            expected |= {f"block{index}.{family}.{name}": values for name, values in numbers.items()}
        answers = classifier_invariants(signal, U.classifier)
        expected |= {f"{family}.classifier.{name}": values for name, values in answers.items()}
    assert expected.keys() == by_name.keys()
    for name, numbers in expected.items():
        torch.testing.assert_close(by_name[name], numbers, rtol=0, atol=0, msg=name)
