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


def test_signals_without_direction_are_none(generator):
    """Constant tokens, and those that have overflown; all others are divided by their deviation."""
    signal = torch.randn(1, 6, 1, 4, generator=generator)
    for token, value in enumerate((5.0, torch.inf, torch.nan, 1e25)):
        signal[0, token, 0, 1:] = value
    signal[0, 0] = 5.0
    kept = signal[:, 4:] - signal[:, 4:].mean(-1, keepdim=True)
    expected = kept / kept.square().mean(-1, keepdim=True).sqrt()
    found = normalize(signal)
    assert torch.equal(found[:, :4], torch.zeros(1, 4, 1, 4))
    torch.testing.assert_close(found[:, 4:], expected, rtol=1e-6, atol=0)


def test_deviations_of_scores_are_those_of_std(generator):
    spec = TransformerSpec((BlockSpec(2, 8, 4, 4, 8),), FeedForwardSpec((8, 8, 3)))
    block = random_transformer(spec, 2, generator).blocks[0]
    signal = normalize(torch.randn(2, 5, 7, 8, generator=generator, dtype=torch.float64))
    W_Q, W_K = (W.squeeze(1) - W.squeeze(1).mean(-2, keepdim=True) for W in (block.W_Q, block.W_K))
    scores = torch.einsum("bntd,bhdk,bhek,bnse->bnhts", signal, W_Q, W_K, signal) / 2
    expected = torch.log(scores.std(-1, correction=0).mean((1, 3)) + 1e-6).mean(1)
    assert torch.allclose(block_invariants(signal, block)[1]["score_deviation_mean"], expected, rtol=0, atol=1e-12)
    same = block_invariants(signal[:, :, :1].expand(-1, -1, 7, -1), block)[1]["score_deviation_max"]
    assert torch.equal(same, torch.full((2,), 1e-6, dtype=torch.float64).log())
