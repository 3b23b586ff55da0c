"""Flattening and statistics against known values."""

import torch
from symmetry import random_feed_forward, random_transformer

from nfn_transformer import BlockSpec, EmbeddingSpec, FeedForwardSpec, FeedForwardWeights, TransformerSpec
from nfn_transformer.features.statistics import STATISTICS_PER_TENSOR, weight_statistics
from nfn_transformer.weights.containers import flatten


def test_flattening_holds_every_trained_number_once(generator):
    spec = TransformerSpec((BlockSpec(2, 4, 1, 3, 5),), FeedForwardSpec((4, 3, 2)), EmbeddingSpec(1, 4, (2, 2), 4))
    weights = random_transformer(spec, 2, generator)
    flat = flatten((*weights.blocks, weights.classifier, weights.embedding))
    positional = weights.embedding.pos_embedding[0].flatten()
    everything = torch.cat([tensor[0].flatten() for tensor in weights.tensors()])
    assert flat.shape == (2, len(everything) - len(positional))
    assert torch.equal(torch.cat([flat[0], positional]).sort().values, everything.sort().values)


def test_statistics_of_a_known_tensor():
    numbers = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0]).view(1, 1, 5)
    part = FeedForwardWeights((numbers[..., None],), (torch.full((1, 1, 1), 7.0),))
    found = weight_statistics((part,))
    assert torch.allclose(found[0, :7], torch.tensor([4.0, 10.0, 1.0, 2.0, 3.0, 4.0, 10.0]))
    assert torch.equal(found[0, 7:], torch.tensor([7.0, 0.0, 7.0, 7.0, 7.0, 7.0, 7.0]))


def test_statistics_have_seven_numbers_per_tensor(generator):
    part = random_feed_forward(FeedForwardSpec((4, 3, 2)), 5, 1, generator)
    assert weight_statistics((part,)).shape == (5, 4 * STATISTICS_PER_TENSOR)
