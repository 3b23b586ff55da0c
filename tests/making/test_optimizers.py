"""The population's optimizers against torch.optim, network by network."""

import pytest
import torch

from nfn_transformer.making.optimizers import RULES, PopulationOptimizer

STEPS = 12
LEARNING_RATES = (0.3, 0.01, 0.001)
L2_REGULARIZERS = (0.0, 1e-4, 1e-2)

REFERENCES = {
    "sgd": lambda p, lr, decay: torch.optim.SGD([p], lr=lr, weight_decay=decay),
    "sgd_momentum": lambda p, lr, decay: torch.optim.SGD([p], lr=lr, weight_decay=decay, momentum=0.9),
    "adam": lambda p, lr, decay: torch.optim.Adam([p], lr=lr, weight_decay=decay),
    "rmsprop": lambda p, lr, decay: torch.optim.RMSprop([p], lr=lr, weight_decay=decay),
}


def _reference(
    name: str, start: torch.Tensor, gradients: torch.Tensor, lr: float, decay: float, factors
) -> torch.Tensor:
    parameter = start.clone().requires_grad_()
    optimizer = REFERENCES[name](parameter, lr, decay)
    for gradient, factor in zip(gradients, factors, strict=True):
        optimizer.param_groups[0]["lr"] = lr * factor
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("name", RULES)
def test_steps_equal_those_of_torch_optim(name):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    gradients = torch.randn(STEPS, 3, 20, generator=generator, dtype=torch.float64)
    factors = [(step + 1) / STEPS for step in range(STEPS)]
    rows = start.clone()
    lr = torch.tensor(LEARNING_RATES, dtype=torch.float64)
    optimizer = PopulationOptimizer(name, rows, lr, torch.tensor(L2_REGULARIZERS, dtype=torch.float64))
    for gradient, factor in zip(gradients, factors, strict=True):
        optimizer.step(gradient, factor, torch.ones(3, dtype=torch.bool))
    settings = zip(LEARNING_RATES, L2_REGULARIZERS, strict=True)
    expected = [_reference(name, start[i], gradients[:, i], *pair, factors) for i, pair in enumerate(settings)]
    torch.testing.assert_close(rows, torch.stack(expected), rtol=1e-12, atol=1e-13)
    assert (rows - start).abs().min() > 0


def test_every_optimizer_has_a_reference():
    assert set(RULES) == set(REFERENCES)


@pytest.mark.parametrize("name", RULES)
def test_what_does_not_move_stays_and_does_not_touch_the_rest(name):
    rows = torch.ones(2, 5, dtype=torch.float64)
    optimizer = PopulationOptimizer(name, rows, torch.full((2,), 0.1), torch.zeros(2))
    gradient = torch.stack([torch.full((5,), 0.5), torch.full((5,), float("nan"))]).double()
    for _ in range(2):
        optimizer.step(gradient, 1.0, torch.tensor([True, False]))
    assert (rows[0] < 1).all()
    assert torch.equal(rows[1], torch.ones(5, dtype=torch.float64))
