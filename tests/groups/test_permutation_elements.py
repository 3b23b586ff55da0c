"""Permutations of neurons: a group that acts, and that a network's function does not see."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry import random_feed_forward

from nfn_transformer import FeedForwardSpec, FeedForwardWeights, PermutationElement
from nfn_transformer.groups.equivariance_error import relative_error

specs = st.lists(st.integers(1, 5), min_size=2, max_size=5).map(lambda sizes: FeedForwardSpec(tuple(sizes)))


def run(weights: FeedForwardWeights, inputs: torch.Tensor) -> torch.Tensor:
    """The networks' outputs [b, m, n_L] for inputs [m, n_0]."""
    signal = inputs.expand(weights.biases[0].shape[0], *inputs.shape)
    for place, (W, b) in enumerate(zip(weights.weights, weights.biases, strict=True)):
        signal = (signal if place == 0 else signal.relu()) @ W.squeeze(1).transpose(1, 2) + b
    return signal


@settings(max_examples=40, deadline=None)
@given(spec=specs, outer=st.booleans(), seed=st.integers(0, 2**32))
def test_it_is_a_group_that_acts(spec, outer, seed):
    generator = torch.Generator().manual_seed(seed)
    U = random_feed_forward(spec, 2, 3, generator)
    g, h = (PermutationElement.sample(spec, generator, outer) for _ in range(2))
    assert relative_error(g.act(h.act(U)), (g @ h).act(U)) == 0
    assert relative_error((~g).act(g.act(U)), U) == 0
    assert relative_error(PermutationElement.identity(spec).act(U), U) == 0


@settings(max_examples=40, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32))
def test_the_function_is_the_same_up_to_the_names_of_inputs_and_outputs(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    U = random_feed_forward(spec, 2, 1, generator)
    inputs = torch.randn(7, spec.sizes[0], generator=generator, dtype=torch.float64)
    hidden, whole = (PermutationElement.sample(spec, generator, outer) for outer in (False, True))
    assert relative_error(run(hidden.act(U), inputs), run(U, inputs)) < 1e-12
    renamed = run(whole.act(U), inputs[:, whole.permutations[0]])
    assert relative_error(renamed, run(U, inputs)[..., whole.permutations[-1]]) < 1e-12
