"""NP and HNP layers and pooling: exact symmetry, all maps and only those, sensitivity, gradients."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_feed_forward, with_one_tensor_changed

from nfn_transformer import (
    FeedForwardSpec,
    FeedForwardWeights,
    HNPLinear,
    HNPPooling,
    NPLinear,
    NPPooling,
    PermutationElement,
    SpecError,
    equivariance_error,
    relu,
)
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.layers.permutation import PermutationLinear

SPEC = FeedForwardSpec((4, 5, 6, 3))
TOLERANCE = 1e-9
KINDS = pytest.mark.parametrize("outer", [False, True], ids=["HNP", "NP"])

specs = st.lists(st.integers(1, 5), min_size=3, max_size=5).map(lambda sizes: FeedForwardSpec(tuple(sizes)))
seeds = st.integers(0, 2**32)


def layer(spec=SPEC, d=2, e=3, outer=False, seed=0) -> PermutationLinear:
    kind = NPLinear if outer else HNPLinear
    return kind(spec, d, e, "xavier_normal", torch.Generator().manual_seed(seed)).double()


def pooling(spec, channels, outer):
    return (NPPooling if outer else HNPPooling)(spec, channels)


@settings(max_examples=30, deadline=None)
@given(spec=specs, d=st.integers(1, 3), e=st.integers(1, 3), outer=st.booleans(), seed=seeds)
def test_layers_and_pooling_respect_the_group(spec, d, e, outer, seed):
    generator = torch.Generator().manual_seed(seed)
    U, g = random_feed_forward(spec, 2, d, generator), PermutationElement.sample(spec, generator, outer)
    first, second = layer(spec, d, e, outer, seed), layer(spec, e, 2, outer, seed + 1)
    pool = pooling(spec, 2, outer)
    assert equivariance_error(first, g, U) < TOLERANCE
    assert equivariance_error(lambda W: pool(relu(second(relu(first(W))))), g, U) < TOLERANCE
    first(U).check(spec)
    assert pool(second(first(U))).shape == (2, pool.out_channels)


def as_vector(U: FeedForwardWeights) -> torch.Tensor:
    return torch.cat([tensor.flatten(1) for tensor in U.tensors()], dim=1)


@KINDS
@pytest.mark.parametrize("sizes", [(2, 3, 2), (2, 2, 3), (2, 2, 2, 3)])
def test_they_are_all_the_maps_that_commute(sizes, outer):
    """The dimension of what commutes, by averaging over the whole group, is the number of independent parameters.

    In the mean over the group of a permutation matrix's squared trace counts the orbits on pairs of entries.
    """
    spec = FeedForwardSpec(sizes)
    count = sum(math.prod(sizes[a] for a in axes) for axes in ([s, s - 1] for s in range(1, len(sizes))))
    count += sum(sizes[1:])
    eye = torch.eye(count, dtype=torch.float64)
    shapes = [(sizes[s], sizes[s - 1]) for s in range(1, len(sizes))] + [(n,) for n in sizes[1:]]
    flat = eye.split([math.prod(shape) for shape in shapes], dim=1)
    parts = [part.unflatten(1, shape)[:, None] for part, shape in zip(flat, shapes, strict=True)]
    basis = FeedForwardWeights(tuple(parts[: spec.layers]), tuple(parts[spec.layers :]))
    free = range(len(sizes)) if outer else range(1, len(sizes) - 1)
    choices = [list(itertools.permutations(range(n))) if s in free else [tuple(range(n))] for s, n in enumerate(sizes)]
    traces = [
        as_vector(PermutationElement(tuple(map(torch.tensor, chosen))).act(basis)).trace().item() ** 2
        for chosen in itertools.product(*choices)
    ]
    expected = round(sum(traces) / len(traces))
    made = layer(spec, 1, 1, outer)
    with torch.no_grad():
        for constant in made.constants:
            constant.zero_()
    images = []
    for Phi in made.Phi:
        for entry in range(Phi.numel()):
            with torch.no_grad():
                for other in made.Phi:
                    other.zero_()
                Phi.view(-1)[entry] = 1
                images.append(as_vector(made(basis)).flatten())
    assert torch.linalg.matrix_rank(torch.stack(images)).item() == len(images) == expected


@KINDS
def test_pooling_is_the_mean_over_what_is_permuted(outer, generator):
    U = random_feed_forward(SPEC, 2, 3, generator)
    found = pooling(SPEC, 3, outer)(U)
    first = U.weights[0]
    rows = first.mean((-2, -1)) if outer else first.mean(-2).flatten(1)
    assert relative_error(found[:, : rows.shape[1]], rows) < 1e-12
    ends = U.biases[-1].mean(-1) if outer else U.biases[-1].flatten(1)
    assert relative_error(found[:, -ends.shape[1] :], ends) < 1e-12
    assert found.shape[1] == pooling(SPEC, 3, outer).out_channels


@KINDS
def test_outputs_depend_on_every_input(outer, generator):
    U, made, pool = random_feed_forward(SPEC, 1, 2, generator), layer(outer=outer), pooling(SPEC, 3, outer)
    for name, moved in with_one_tensor_changed(U, generator):
        assert (pool(relu(made(moved))) - pool(relu(made(U)))).abs().max() > 1e-3, name


def test_hidden_layers_alone_are_permuted_unless_asked(generator):
    U, g = random_feed_forward(SPEC, 2, 2, generator), PermutationElement.sample(SPEC, generator, outer=True)
    for outer, symmetric in ((False, False), (True, True)):
        made, pool = layer(outer=outer), pooling(SPEC, 3, outer)
        assert (equivariance_error(lambda W, made=made, pool=pool: pool(relu(made(W))), g, U) < 1e-9) == symmetric
    # Neurons of one layer in two ways, in what comes before and after, are no permutation of the network.
    half = replace(U, weights=(U.weights[0].flip(-2), *U.weights[1:]))
    pool = pooling(SPEC, 3, True)
    assert relative_error(pool(relu(layer(outer=True)(half))), pool(relu(layer(outer=True)(U)))) > 1e-3


@KINDS
def test_every_parameter_gets_a_gradient(outer, generator):
    U, made, pool = random_feed_forward(SPEC, 2, 2, generator), layer(outer=outer), pooling(SPEC, 3, outer)
    pool(made(U)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert (parameter.grad != 0).all(), name


@KINDS
def test_signals_keep_their_size_through_many_layers(outer, generator):
    U = random_feed_forward(FeedForwardSpec((8, 8, 8, 8, 4)), 4, 4, generator)
    for seed in range(6):
        U = relu(layer(FeedForwardSpec((8, 8, 8, 8, 4)), 4, 4, outer, seed)(U))
        assert all(torch.isfinite(tensor).all() for tensor in U.tensors())
    assert 1e-4 < as_vector(U).std() < 1e2


def test_wrong_sizes_are_refused(generator):
    for kind in (lambda spec: NPLinear(spec, 1, 1), lambda spec: NPPooling(spec, 1)):
        with pytest.raises(SpecError, match=r"sizes \(4, 3\) have no hidden layer"):
            kind(FeedForwardSpec((4, 3)))
    with pytest.raises(SpecError, match=r"'weights\[0\]' has shape \(1, 2, 5, 5\), expected \(b, d, 5, 4\)"):
        layer()(random_feed_forward(FeedForwardSpec((5, 5, 6, 3)), 1, 2, generator))
    with pytest.raises(SpecError, match="have 1 channels, expected 3"):
        pooling(SPEC, 3, True)(random_feed_forward(SPEC, 1, 1, generator))
