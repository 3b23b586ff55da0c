"""Attention among neurons: exact symmetry, its definition neuron by neuron, sensitivity, gradients."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import Acting, random_feed_forward, with_one_tensor_changed

from nfn_transformer import (
    FeedForwardSpec,
    HNPPooling,
    NFTBlock,
    NFTEmbedding,
    PermutationElement,
    SpecError,
    equivariance_error,
)
from nfn_transformer.groups.equivariance_error import relative_error

SPEC = FeedForwardSpec((4, 5, 6, 3))
TOLERANCE = 1e-9

specs = st.lists(st.integers(1, 5), min_size=3, max_size=5).map(lambda sizes: FeedForwardSpec(tuple(sizes)))


def stack(spec=SPEC, d=2, c=4, seed=0):
    torch.manual_seed(seed)
    embedding, blocks = NFTEmbedding(spec, d, c).double(), [NFTBlock(spec, c).double() for _ in range(2)]
    pool = HNPPooling(spec, c)

    def features(U):
        U = embedding(U)
        for block in blocks:
            U = block(U)
        return U

    return embedding, blocks, features, lambda U: pool(features(U))


@settings(max_examples=25, deadline=None)
@given(spec=specs, d=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_blocks_respect_permutations_of_hidden_neurons(spec, d, seed):
    generator = torch.Generator().manual_seed(seed)
    U, g = random_feed_forward(spec, 2, d, generator), PermutationElement.sample(spec, generator)
    _, _, features, invariants = stack(spec, d, seed=seed % 1000)
    assert equivariance_error(features, g, U) < TOLERANCE
    assert equivariance_error(invariants, g, U) < TOLERANCE
    features(U).check(spec)


def test_attention_is_its_definition_neuron_by_neuron(generator):
    """Neurons of hidden layer 1 carry rows of W^(1), entries of b^(1) and columns of W^(2)."""
    c, block = 4, stack()[1][0]
    U = random_feed_forward(SPEC, 1, c, generator)
    tensors = [tensor.movedim(1, -1)[0] for tensor in U.tensors()]
    normed = [norm(tensor) for norm, tensor in zip(block.norms, tensors, strict=True)]
    Q, K, V = (
        [layer(t) for layer, t in zip(layers, normed, strict=True)]
        for layers in (block.queries, block.keys, block.values)
    )
    scores = torch.empty(5, 5, dtype=torch.float64)
    for j in range(5):
        for k in range(5):
            carried = [(Q[0][j], K[0][k]), (Q[3][j][None], K[3][k][None]), (Q[1][:, j], K[1][:, k])]
            products = torch.cat([query * key for query, key in carried])  # [4 + 1 + 6, c]
            assert products.shape == (11, c)
            scores[j, k] = math.sqrt(c) * products.mean()
    attention = scores.softmax(1)
    bias = torch.stack([sum(attention[j, k] * V[3][k, :c] for k in range(5)) for j in range(5)])
    expected = tensors[3] + block.mixers[3](bias)
    expected = expected + block.perceptrons[3](expected)
    found = block(U)
    assert relative_error(found.biases[0][0].T, expected) < 1e-12
    row_part = torch.einsum("jk,kmc->jmc", attention, V[0][..., :c])
    assert (row_part - V[0][..., :c]).abs().max() > 1e-3


def test_outputs_depend_on_every_input(generator):
    U = random_feed_forward(SPEC, 1, 2, generator)
    invariants = stack()[3]
    for name, moved in with_one_tensor_changed(U, generator):
        assert (invariants(moved) - invariants(U)).abs().max() > 1e-3, name


def test_inputs_outputs_and_one_side_alone_are_told_apart(generator):
    U, (*_, invariants) = random_feed_forward(SPEC, 1, 2, generator), stack()
    whole = PermutationElement.sample(SPEC, generator, outer=True)
    assert equivariance_error(invariants, whole, U) > 1e-3

    def flip_one_side(W):
        return replace(W, weights=(W.weights[0].flip(-2), *W.weights[1:]))

    assert equivariance_error(invariants, Acting(flip_one_side), U) > 1e-3


def test_every_parameter_gets_a_gradient(generator):
    U, (embedding, blocks, _, invariants) = random_feed_forward(SPEC, 2, 2, generator), stack()
    invariants(U).square().sum().backward()
    for module in (embedding, *blocks):
        for name, parameter in module.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("L", [2, 4])
def test_gradients_stay_finite_in_deep_networks(L, generator):
    spec = FeedForwardSpec((6,) * L + (4,))
    U = random_feed_forward(spec, 4, 2, generator).map(lambda tensor: 100 * tensor)
    embedding, blocks, _, invariants = stack(spec)
    invariants(U).square().mean().backward()
    for module in (embedding, *blocks):
        assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


def test_wrong_sizes_are_refused(generator):
    for make in (lambda spec: NFTEmbedding(spec, 1, 2), lambda spec: NFTBlock(spec, 2)):
        with pytest.raises(SpecError, match=r"sizes \(4, 3\) have no hidden layer"):
            make(FeedForwardSpec((4, 3)))
    with pytest.raises(SpecError, match="have 1 channels, expected 2"):
        NFTEmbedding(SPEC, 2, 3)(random_feed_forward(SPEC, 1, 1, generator).map(torch.Tensor.float))
