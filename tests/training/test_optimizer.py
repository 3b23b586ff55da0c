"""The schedule's known values, and optimizers by name."""

from itertools import pairwise, product

import pytest
import torch

from nfn_transformer.training.config import OPTIMIZERS, TrainingConfig
from nfn_transformer.training.step import OptimizerStep, build_optimizer, learning_rate


def test_warm_up_then_cosine_to_1e_5():
    rates = [learning_rate(epoch, TrainingConfig()) for epoch in range(1, 101)]
    assert rates[:10] == pytest.approx([1e-4 * k for k in range(1, 11)])
    assert rates[54] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[-1] == pytest.approx(1e-5)
    assert all(a > b for a, b in pairwise(rates[9:]))


def test_warm_up_is_cut_to_the_epochs():
    assert [learning_rate(epoch, TrainingConfig(2, 10, lr=1.0)) for epoch in (1, 2)] == pytest.approx([0.5, 1.0])
    assert learning_rate(1, TrainingConfig(1, 0, lr=1.0)) == pytest.approx(1e-5)


def test_a_rate_below_the_final_one_never_rises():
    assert learning_rate(20, TrainingConfig(20, 5, lr=1e-6)) == pytest.approx(1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_obey_their_settings(name):
    parameter = torch.nn.Parameter(torch.ones(2))
    group = build_optimizer(TrainingConfig(optimizer=name, lr=0.5, wd=0.25), [parameter]).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert group.get("momentum", 0) == (0.9 if name == "sgd_momentum" else 0)


# PyTorch's fused SGD with momentum refuses gradients that come late.
@pytest.mark.parametrize(("name", "late"), [*product(OPTIMIZERS, (0, 9)), ("adam", 2)])
def test_steps_are_those_of_the_optimizer(name, late, generator):
    """Also after its rate has changed, from a state that was loaded, and where a parameter's gradients come late."""
    initial = [torch.randn(shape, generator=generator) for shape in ((3, 4), (), (5,), (2,))]

    def train(steps_of):
        parameters = [torch.nn.Parameter(tensor.clone()) for tensor in initial]
        optimizer, state = build_optimizer(TrainingConfig(optimizer=name, lr=0.1, wd=0.01), parameters), None
        draws = torch.Generator().manual_seed(2)
        for place, rate in enumerate((0.1, 0.2, 0.05)):
            if state is not None:
                optimizer.load_state_dict(state)
            step = steps_of(optimizer)
            for number, factor in enumerate((1.0, 0.5, 0.1), start=3 * place):
                optimizer.param_groups[0]["lr"] = factor * rate
                for parameter in parameters if number >= late else parameters[:-1]:
                    parameter.grad = torch.randn(parameter.shape, generator=draws)
                step()
            state = optimizer.state_dict()
        return parameters, state

    (parameters, state), (expected, expected_state) = train(OptimizerStep), train(lambda optimizer: optimizer.step)
    torch.testing.assert_close(parameters, expected, rtol=0, atol=0)
    torch.testing.assert_close(state["state"], expected_state["state"], rtol=0, atol=0)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="--optimizer adagrad: expected one of adam, sgd, sgd_momentum, rmsprop"):
        TrainingConfig(optimizer="adagrad")
