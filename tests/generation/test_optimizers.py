"""The population's optimizers against torch.optim, network by network."""

import pytest
import torch

from nfn_transformer.generation.optimizers import RULES, PopulationOptimizer

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
    optimizer = PopulationOptimizer([name] * 3, rows, lr, torch.tensor(L2_REGULARIZERS, dtype=torch.float64))
    for gradient, factor in zip(gradients, factors, strict=True):
        optimizer.step(gradient, torch.full((3,), factor, dtype=torch.float64), torch.ones(3, dtype=torch.bool))
    settings = zip(LEARNING_RATES, L2_REGULARIZERS, strict=True)
    expected = [_reference(name, start[i], gradients[:, i], *pair, factors) for i, pair in enumerate(settings)]
    torch.testing.assert_close(rows, torch.stack(expected), rtol=1e-12, atol=1e-13)
    assert (rows - start).abs().min() > 0


def test_every_optimizer_has_a_reference():
    assert set(RULES) == set(REFERENCES)


@pytest.mark.parametrize("name", RULES)
def test_what_does_not_move_stays_and_does_not_touch_the_rest(name):
    rows = torch.ones(2, 5, dtype=torch.float64)
    optimizer = PopulationOptimizer([name] * 2, rows, torch.full((2,), 0.1), torch.zeros(2))
    gradient = torch.stack([torch.full((5,), 0.5), torch.full((5,), float("nan"))]).double()
    for _ in range(2):
        optimizer.step(gradient, torch.ones(2), torch.tensor([True, False]))
    assert (rows[0] < 1).all()
    assert torch.equal(rows[1], torch.ones(5, dtype=torch.float64))


def test_rules_side_by_side_and_going_on_with_some_of_them():
    generator = torch.Generator().manual_seed(2)
    names = ["adam", "adam", "sgd", "rmsprop", "rmsprop", "sgd_momentum"]
    start = torch.randn(6, 7, generator=generator, dtype=torch.float64)
    gradients = torch.randn(STEPS, 6, 7, generator=generator, dtype=torch.float64)
    lr = torch.tensor([0.3, 0.01, 0.1, 0.001, 0.02, 0.03], dtype=torch.float64)
    decay = torch.tensor([0.0, 1e-2, 1e-4, 1e-3, 0.0, 1e-2], dtype=torch.float64)
    rows, left = start.clone(), list(range(6))
    optimizer = PopulationOptimizer(names, rows, lr, decay)
    ended = {}
    for step, gradient in enumerate(gradients):
        if step == 5:
            kept = [0, 2, 4, 5]
            ended = {place: rows[place] for place in (1, 3)}
            rows, left = rows[kept], kept
            optimizer.select(kept, rows)
        factors = torch.full((len(left),), 1.0)
        optimizer.step(gradient[left], factors, torch.ones(len(left), dtype=torch.bool))
    ended |= {place: rows[number] for number, place in enumerate(left)}
    for place, name in enumerate(names):
        steps = 5 if place in (1, 3) else STEPS
        alone = _reference(name, start[place], gradients[:steps, place], lr[place], decay[place], [1.0] * steps)
        torch.testing.assert_close(ended[place], alone, rtol=1e-12, atol=1e-13)
