"""HNPS layers and pooling: exact symmetry, the term-by-term formulas, sensitivity, gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import Acting, random_feed_forward, with_one_tensor_changed

from nfn_transformer import (
    FeedForwardSpec,
    FeedForwardWeights,
    HNPSLayer,
    HNPSPooling,
    MonomialElement,
    SpecError,
    equivariance_error,
    relu,
)
from nfn_transformer.groups.equivariance_error import relative_error

SPEC = FeedForwardSpec((4, 5, 6, 3))
TOLERANCE = 1e-9

specs = st.lists(st.integers(1, 5), min_size=3, max_size=5).map(lambda sizes: FeedForwardSpec(tuple(sizes)))
seeds = st.integers(0, 2**32)


def hnps(spec=SPEC, d=2, e=3, seed=0):
    return HNPSLayer(spec, d, e, "xavier_normal", torch.Generator().manual_seed(seed)).double()


def pooling(spec=SPEC, d=2, seed=0):
    layer = HNPSPooling(spec, d).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


def slow_hnps(layer: HNPSLayer, U: FeedForwardWeights) -> FeedForwardWeights:
    """The formulas entry by entry: sums over input channels d of matrix products."""
    b, d, e = U.weights[0].shape[0], layer.in_channels, layer.constant.shape[0]
    new = [[[] for _ in range(2 * layer.spec.layers)] for _ in range(b)]
    last = layer.spec.layers - 1
    for n in range(b):
        W, bias = [w[n] for w in U.weights], [v[n] for v in U.biases]
        for out in range(e):
            total = [0] * (last + 1), [0] * (last + 1)
            for c in range(d):
                Phi, phi = layer.first_weight[out, :, c], layer.first_weight_from_bias[out, :, c]
                total[0][0] = total[0][0] + W[0][c] @ Phi.T + torch.outer(bias[0][c], phi)
                total[1][0] = total[1][0] + W[0][c] @ layer.first_bias_from_weight[out, c]
                total[1][0] = total[1][0] + layer.first_bias[out, c] * bias[0][c]
                for i in range(1, last):
                    total[0][i] = total[0][i] + layer.middle_weights[i - 1][out, c] * W[i][c]
                    total[1][i] = total[1][i] + layer.middle_biases[i - 1][out, c] * bias[i][c]
                total[0][last] = total[0][last] + layer.last_weight[out, :, c] @ W[last][c]
                total[1][last] = total[1][last] + layer.last_bias[out, :, c] @ bias[last][c]
            total[1][last] = total[1][last] + layer.constant[out]
            for place, tensor in enumerate((*total[0], *total[1])):
                new[n][place].append(tensor)
    stacked = [torch.stack([torch.stack(new[n][i]) for n in range(b)]) for i in range(2 * layer.spec.layers)]
    return FeedForwardWeights(tuple(stacked[: last + 1]), tuple(stacked[last + 1 :]))


@settings(max_examples=30, deadline=None)
@given(spec=specs, d=st.integers(1, 3), e=st.integers(1, 3), seed=seeds)
def test_layers_and_pooling_respect_the_group(spec, d, e, seed):
    generator = torch.Generator().manual_seed(seed)
    U, g = random_feed_forward(spec, 2, d, generator), MonomialElement.sample(spec, generator)
    layer = hnps(spec, d, e, seed)
    assert equivariance_error(layer, g, U) < TOLERANCE
    assert equivariance_error(pooling(spec, d, seed), g, U) < TOLERANCE
    pool = pooling(spec, e, seed)
    assert equivariance_error(lambda W: pool(relu(layer(W))), g, U) < TOLERANCE


@settings(max_examples=15, deadline=None)
@given(spec=specs, d=st.integers(1, 3), e=st.integers(1, 3), seed=seeds)
def test_layer_equals_the_formulas_term_by_term(spec, d, e, seed):
    U, layer = random_feed_forward(spec, 2, d, torch.Generator().manual_seed(seed)), hnps(spec, d, e, seed)
    with torch.no_grad():
        assert relative_error(layer(U), slow_hnps(layer, U)) < TOLERANCE


def test_pooling_equals_its_definition_entry_by_entry(generator):
    U, pool = random_feed_forward(SPEC, 1, 2, generator), pooling()
    expected = []
    for index, (tensor, kept) in enumerate([(U.weights[0], 4), (U.weights[1], 1), (U.weights[2], 3)]):
        rows = tensor[0] if index != 1 else tensor[0].flatten(1)[:, None]
        rows = rows if index != 0 else rows.transpose(1, 2)  # [d, kept, permuted entries]
        for c in range(2):
            for k in range(kept):
                entries = [
                    rows[c, k, j] / (rows[0, k, j] ** 2 + rows[1, k, j] ** 2) ** 0.5 for j in range(rows.shape[2])
                ]
                expected.append(sum(pool.scale[index, c] * x + pool.shift[index, c] for x in entries) / len(entries))
    for index, bias in enumerate(U.biases[:2], start=3):
        for c in range(2):
            entries = [bias[0, c, j] / (bias[0, 0, j] ** 2 + bias[0, 1, j] ** 2) ** 0.5 for j in range(bias.shape[2])]
            expected.append(sum(pool.scale[index, c] * x + pool.shift[index, c] for x in entries) / len(entries))
    expected = torch.stack([*expected, *U.biases[2][0].flatten()])[None]
    assert pool(U).shape == (1, pool.out_channels)
    assert relative_error(pool(U), expected) < TOLERANCE


def test_pooling_of_zero_entries_is_finite_with_its_gradient(generator):
    U = random_feed_forward(SPEC, 1, 2, generator)
    U = replace(U, weights=tuple(torch.zeros_like(w).requires_grad_() for w in U.weights))
    out = HNPSPooling(SPEC, 2).double()(U)
    out.sum().backward()
    assert (out[:, : 2 * (4 + 1 + 3)] == 0).all()
    assert all(torch.isfinite(w.grad).all() for w in U.weights)


def test_outputs_depend_on_every_input(generator):
    U, layer, pool = random_feed_forward(SPEC, 1, 2, generator), hnps(), pooling(d=3)
    for name, moved in with_one_tensor_changed(U, generator):
        assert (pool(layer(moved)) - pool(layer(U))).abs().max() > 1e-3, name


def test_layers_are_not_more_symmetric_than_the_group(generator):
    """Permuting inputs, or one row of the first weight scaled without its bias, changes the function."""
    U, layer, pool = random_feed_forward(SPEC, 1, 2, generator), hnps(), pooling(d=3)

    def flip_inputs(W):
        return replace(W, weights=(W.weights[0].flip(-1), *W.weights[1:]))

    def scale_a_row(W):
        scale = torch.tensor([3.0, 1, 1, 1, 1], dtype=torch.float64)[:, None]
        return replace(W, weights=(W.weights[0] * scale, *W.weights[1:]))

    def negate_a_neuron(W):
        sign = torch.tensor([-1.0, 1, 1, 1, 1], dtype=torch.float64)
        weights = (W.weights[0] * sign[:, None], W.weights[1] * sign, W.weights[2])
        return FeedForwardWeights(weights, (W.biases[0] * sign, *W.biases[1:]))

    for act in (flip_inputs, scale_a_row, negate_a_neuron):
        assert equivariance_error(lambda W: pool(layer(W)), Acting(act), U) > 1e-3


def test_every_parameter_gets_a_gradient(generator):
    U, layer, pool = random_feed_forward(SPEC, 2, 2, generator), hnps(), pooling(d=3)
    pool(layer(U)).square().sum().backward()
    for name, parameter in (*layer.named_parameters(), *pool.named_parameters()):
        assert (parameter.grad != 0).all(), name


def test_wrong_sizes_are_refused(generator):
    with pytest.raises(SpecError, match=r"sizes \(4, 3\) have no hidden layer"):
        HNPSLayer(FeedForwardSpec((4, 3)), 1, 1)
    with pytest.raises(SpecError, match=r"'weights\[0\]' has shape \(1, 2, 5, 5\), expected \(b, d, 5, 4\)"):
        hnps()(random_feed_forward(FeedForwardSpec((5, 5, 6, 3)), 1, 2, generator))
