"""MAGEP layers: exact symmetry, the formulas product by product, sensitivity, gradients through deep networks."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import Acting, random_feed_forward, with_one_tensor_changed

from nfn_transformer import (
    FeedForwardSpec,
    FeedForwardWeights,
    HNPSPooling,
    MAGEPLayer,
    MonomialElement,
    SpecError,
    equivariance_error,
    relu,
)
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.layers.magep import Products, count_invariants

SPEC = FeedForwardSpec((4, 5, 6, 3))
TOLERANCE = 1e-9

specs = st.lists(st.integers(1, 5), min_size=3, max_size=5).map(lambda sizes: FeedForwardSpec(tuple(sizes)))
seeds = st.integers(0, 2**32)


def magep(spec=SPEC, d=2, e=3, seed=0, **settings) -> MAGEPLayer:
    return MAGEPLayer(spec, d, e, "xavier_normal", torch.Generator().manual_seed(seed), **settings).double()


def slow_magep(layer: MAGEPLayer, U: FeedForwardWeights, n: int) -> list[torch.Tensor]:
    """Outputs of one network [e, ...], from chains of matrices, each sum over n numbers divided by sqrt(n)."""
    sizes, L, d = layer.spec.sizes, layer.spec.layers, layer.in_channels
    W, b = [None, *(w[n] for w in U.weights)], [None, *(v[n] for v in U.biases)]

    def chain(c, s, t):
        product = torch.eye(sizes[s], dtype=torch.float64)
        for step in range(s, t, -1):
            product = product @ W[step][c] / (1 if step == s else math.sqrt(sizes[step]))
        return product

    def like_weight(c, s, t):
        Psi, psi = layer.Psi[c], layer.psi[c]
        WW = chain(c, s, 0) @ Psi @ chain(c, L, t) / math.sqrt(sizes[0] * sizes[L])
        bW = torch.outer(b[s][c], psi @ chain(c, L, t)) / math.sqrt(sizes[L])
        return [chain(c, s, t), WW, bW]

    def pushed(c, s, t):
        return chain(c, s, t) @ b[t][c] / math.sqrt(sizes[t])

    def invariants(c):
        found = [x.flatten() for x in like_weight(c, L, 0)]
        found += [pushed(c, L, t) for t in range(1, L)] + [b[L][c]]
        for s in range(1, L):
            found += [like_weight(c, s, s)[k].trace()[None] / math.sqrt(sizes[s]) for k in (1, 2)]
        return torch.cat(found)

    weights, biases = [], []
    for out in range(layer.constant.shape[0]):
        new_W, new_b = [0.0] * (L + 1), [0.0] * (L + 1)
        for c in range(d):
            for f, x in enumerate(like_weight(c, 1, 0)):
                new_W[1] = new_W[1] + x @ layer.first_weight[f, out, :, c].T
            new_W[1] = new_W[1] + torch.outer(b[1][c], layer.first_weight_from_bias[out, :, c])
            for i in range(2, L):
                for f, x in enumerate(like_weight(c, i, i - 1)):
                    new_W[i] = new_W[i] + layer.middle_weights[i - 2][f, out, c] * x
            for f, x in enumerate(like_weight(c, L, L - 1)):
                new_W[L] = new_W[L] + layer.last_weight[f, out, :, c] @ x
            for i in range(1, L):
                for f, x in enumerate(like_weight(c, i, 0)):
                    new_b[i] = new_b[i] + x @ layer.biases_from_weights[i - 1][f, out, c]
                phi = layer.biases_from_biases[i - 1][:, out, c]
                for t in range(1, i):
                    new_b[i] = new_b[i] + phi[t - 1] * pushed(c, i, t)
                new_b[i] = new_b[i] + phi[i - 1] * b[i][c]
            new_b[L] = new_b[L] + layer.last_bias[out, :, c] @ invariants(c)
        new_b[L] = new_b[L] + layer.constant[out]
        weights.append(new_W[1:])
        biases.append(new_b[1:])
    return [torch.stack(of_place) for of_place in (*zip(*weights, strict=True), *zip(*biases, strict=True))]


@settings(max_examples=30, deadline=None)
@given(spec=specs, d=st.integers(1, 3), e=st.integers(1, 3), seed=seeds)
def test_layers_respect_the_group(spec, d, e, seed):
    generator = torch.Generator().manual_seed(seed)
    U, g = random_feed_forward(spec, 2, d, generator), MonomialElement.sample(spec, generator)
    first, second, pool = magep(spec, d, e, seed), magep(spec, e, 2, seed + 1), HNPSPooling(spec, 2).double()
    assert equivariance_error(first, g, U) < TOLERANCE
    assert equivariance_error(lambda W: pool(relu(second(relu(first(W))))), g, U) < TOLERANCE


@settings(max_examples=15, deadline=None)
@given(spec=specs, d=st.integers(1, 3), e=st.integers(1, 3), seed=seeds)
def test_layer_equals_the_formulas_product_by_product(spec, d, e, seed):
    U, layer = random_feed_forward(spec, 2, d, torch.Generator().manual_seed(seed)), magep(spec, d, e, seed)
    with torch.no_grad():
        found = layer(U)
        for n in range(2):
            for tensor, expected in zip(found.tensors(), slow_magep(layer, U, n), strict=True):
                assert relative_error(tensor[n], expected) < TOLERANCE


@settings(max_examples=20, deadline=None)
@given(spec=specs, seed=seeds)
def test_invariants_are_unchanged_and_counted(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    U, g, layer = random_feed_forward(spec, 2, 2, generator), MonomialElement.sample(spec, generator), magep(spec)

    def invariants(W):
        return Products(spec, W, layer.Psi, layer.psi).invariants()

    assert equivariance_error(invariants, g, U) < TOLERANCE
    assert invariants(U).shape == (2, 2, count_invariants(spec))


def test_weights_of_different_hidden_layers_meet(generator):
    """HNPS layers cannot do this: the first weights' output depends on the last weights."""
    U, layer = random_feed_forward(SPEC, 1, 2, generator), magep()
    last = U.weights[-1] + torch.randn(U.weights[-1].shape, generator=generator, dtype=torch.float64)
    moved = layer(replace(U, weights=(*U.weights[:-1], last)))
    for before, after in zip(layer(U).tensors(), moved.tensors(), strict=True):
        assert relative_error(after, before) > 1e-3


def test_outputs_depend_on_every_input(generator):
    U, layer, pool = random_feed_forward(SPEC, 1, 2, generator), magep(), HNPSPooling(SPEC, 3).double()
    for name, moved in with_one_tensor_changed(U, generator):
        assert (pool(layer(moved)) - pool(layer(U))).abs().max() > 1e-3, name


def test_layers_are_not_more_symmetric_than_the_group(generator):
    U, layer, pool = random_feed_forward(SPEC, 1, 2, generator), magep(), HNPSPooling(SPEC, 3).double()

    def flip_inputs(W):
        return replace(W, weights=(W.weights[0].flip(-1), *W.weights[1:]))

    def flip_one_side(W):
        return replace(W, weights=(W.weights[0].flip(-2), *W.weights[1:]))

    def negate_a_neuron(W):
        sign = torch.tensor([-1.0, 1, 1, 1, 1], dtype=torch.float64)
        weights = (W.weights[0] * sign[:, None], W.weights[1] * sign, W.weights[2])
        return FeedForwardWeights(weights, (W.biases[0] * sign, *W.biases[1:]))

    for act in (flip_inputs, flip_one_side, negate_a_neuron):
        assert equivariance_error(lambda W: pool(relu(layer(W))), Acting(act), U) > 1e-3


@pytest.mark.parametrize("learn_Psi", [False, True])
def test_every_parameter_gets_a_gradient(learn_Psi, generator):
    U, layer = random_feed_forward(SPEC, 2, 2, generator), magep(learn_Psi=learn_Psi)
    pool = HNPSPooling(SPEC, 3).double()
    pool(layer(U)).square().sum().backward()
    assert ("Psi" in dict(layer.named_parameters())) == learn_Psi
    for name, parameter in layer.named_parameters():
        assert (parameter.grad != 0).all(), name


@pytest.mark.parametrize("L", [2, 3, 4])
def test_outputs_and_gradients_keep_their_size_in_deep_networks(L, generator):
    """Products grow as powers of the weights; of weights of size one, as standardised ones, they stay of that order."""
    spec = FeedForwardSpec((8,) * L + (5,))
    U = random_feed_forward(spec, 16, 4, generator)
    layers = [magep(spec, 4, 4, seed) for seed in range(2)]
    out = layers[1](relu(layers[0](U)))
    sizes = [tensor.std().item() for tensor in out.tensors()]
    assert all(1e-2 < size < 1e2 for size in sizes), sizes
    sum(tensor.square().mean() for tensor in out.tensors()).backward()
    for layer in layers:
        for name, parameter in layer.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert 1e-6 < parameter.grad.abs().max() < 1e4, name


def test_wrong_sizes_are_refused(generator):
    with pytest.raises(SpecError, match=r"sizes \(4, 3\) have no hidden layer"):
        MAGEPLayer(FeedForwardSpec((4, 3)), 1, 1)
    with pytest.raises(SpecError, match=r"'weights\[0\]' has shape \(1, 2, 5, 5\), expected \(b, d, 5, 4\)"):
        magep()(random_feed_forward(FeedForwardSpec((5, 5, 6, 3)), 1, 2, generator))
