"""The group of sine networks: the function stays, elements multiply and invert, phases have a canonical form."""

import math

import pytest
import torch

from nfn_transformer import (
    FeedForwardSpec,
    FeedForwardWeights,
    SineElement,
    canonical_phases,
    feed_forward_outputs,
    sine,
)

SPEC, OMEGA = FeedForwardSpec((2, 32, 32, 1)), 30.0


def random_weights(seed: int) -> FeedForwardWeights:
    """Three networks as SIRENs are initialised, with biases of several periods."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, bound: float) -> torch.Tensor:
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * bound

    pairs = list(zip(SPEC.sizes[1:], SPEC.sizes, strict=False))
    return FeedForwardWeights(
        tuple(uniform(3, 1, out, inputs, bound=math.sqrt(6 / inputs) / OMEGA) for out, inputs in pairs),
        tuple(uniform(3, 1, out, bound=9 / OMEGA) for out, _ in pairs),
    )


def grid() -> torch.Tensor:
    line = torch.linspace(-1, 1, 7, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def outputs(weights: FeedForwardWeights) -> torch.Tensor:
    return feed_forward_outputs(grid(), weights, sine(OMEGA))


def elements(seed: int) -> tuple[SineElement, SineElement]:
    generator = torch.Generator().manual_seed(seed)
    return SineElement.sample(SPEC, generator), SineElement.sample(SPEC, generator)


def assert_close(first: FeedForwardWeights, second: FeedForwardWeights) -> None:
    for tensor, other in zip(first.tensors(), second.tensors(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=1e-13)


def test_the_pass_is_that_of_pytorch_modules():
    weights = random_weights(0)
    for number, expected in enumerate(outputs(weights)):
        values = grid()
        for layer in range(3):
            W, b = weights.weights[layer][number, 0], weights.biases[layer][number, 0]
            values = torch.nn.functional.linear(values, W, b)
            values = torch.sin(OMEGA * values) if layer < 2 else values
        torch.testing.assert_close(expected, values, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_the_group_keeps_the_function(seed):
    weights, (g, _) = random_weights(seed), elements(seed)
    moved = g.act(weights, OMEGA)
    assert (outputs(moved) - outputs(weights)).abs().max() < 1e-12
    assert all((a - b).abs().max() > 0.01 for a, b in zip(moved.biases[:-1], weights.biases[:-1], strict=True))
    # A phase without its sign, or of another frequency, is another function.
    assert (outputs(g.act(weights, OMEGA * 1.01)) - outputs(weights)).abs().max() > 1e-3


def test_signs_keep_the_function_of_tanh():
    weights = random_weights(0)
    g = SineElement.sample(SPEC, torch.Generator().manual_seed(0), largest_phase=0)
    before, after = (feed_forward_outputs(grid(), each, torch.tanh) for each in (weights, g.act(weights)))
    assert (after - before).abs().max() < 1e-13


@pytest.mark.parametrize("seed", range(3))
def test_elements_multiply_and_invert(seed):
    weights, (g, f) = random_weights(seed), elements(seed)
    assert_close((g @ f).act(weights, OMEGA), g.act(f.act(weights, OMEGA), OMEGA))
    assert_close((~g).act(g.act(weights, OMEGA), OMEGA), weights)
    assert_close(SineElement.identity(SPEC).act(weights, OMEGA), weights)


@pytest.mark.parametrize("seed", range(3))
def test_canonical_phases(seed):
    weights, (g, _) = random_weights(seed), elements(seed)
    canonical = canonical_phases(weights, OMEGA)
    assert (outputs(canonical) - outputs(weights)).abs().max() < 1e-12
    assert all(bias.abs().max() <= math.pi / (2 * OMEGA) for bias in canonical.biases[:-1])
    assert_close(canonical_phases(canonical, OMEGA), canonical)
    # Of the whole group, permutations and signs are left.
    rest = SineElement(g.permutations, g.signs, SineElement.identity(SPEC).phases)
    assert_close(canonical_phases(g.act(weights, OMEGA), OMEGA), rest.act(canonical, OMEGA))
