"""The product of NP and HNP layers: derivatives, several models at once, bfloat16."""

import pytest
import torch
from symmetry import random_feed_forward
from torch.func import functional_call, vmap

from nfn_transformer import FeedForwardSpec, HNPLinear, NPLinear
from nfn_transformer.layers import permutation_product

SPEC = FeedForwardSpec((2, 5, 6, 3))
KINDS = pytest.mark.parametrize("kind", [HNPLinear, NPLinear])


def layer(kind, seed=0, d=2, e=1):
    return kind(SPEC, d, e, generator=torch.Generator().manual_seed(seed)).double()


def derivatives(made, U, used):
    """First derivatives of some outputs' squares by inputs and parameters, and a second derivative."""
    given = [*U.tensors(), *made.parameters()]
    loss = sum(made(U).tensors()[index].square().sum() for index in used)
    first = torch.autograd.grad(loss, given, create_graph=True, materialize_grads=True)
    return *first, *torch.autograd.grad(sum(each.pow(3).sum() for each in first), given, materialize_grads=True)


@KINDS
@pytest.mark.parametrize("used", [range(6), [1]], ids=["all outputs", "one output"])
def test_derivatives_are_those_of_the_operations(kind, used, generator, monkeypatch):
    made, U = layer(kind), random_feed_forward(SPEC, 2, 2, generator).map(lambda tensor: tensor.requires_grad_())
    with torch.no_grad():
        without = made(U).tensors()
    torch.testing.assert_close(without, made(U).tensors())
    found = derivatives(made, U, used)
    monkeypatch.setattr(
        permutation_product._Product,
        "apply",
        lambda layout, *given: permutation_product._forward(layout, given),
    )
    for each, expected in zip(found, derivatives(made, U, used), strict=True):
        torch.testing.assert_close(each, expected)


@KINDS
def test_no_networks_have_no_outputs(kind, generator):
    made, U = layer(kind), random_feed_forward(SPEC, 0, 2, generator)
    outputs = made(U).tensors()
    assert [tensor.shape for tensor in outputs] == [(0, 1, *tensor.shape[2:]) for tensor in U.tensors()]
    sum(tensor.sum() for tensor in outputs).backward()
    assert not any(parameter.grad.any() for parameter in made.parameters())


@KINDS
def test_several_models_at_once_are_each_by_itself(kind, generator):
    models = [layer(kind, seed) for seed in range(3)]
    U = random_feed_forward(SPEC, 2, 2, generator)
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name] for m in models])
        for name in dict(models[0].named_parameters())
    }
    stacked = {name: each.detach().requires_grad_() for name, each in stacked.items()}
    found = vmap(lambda parameters: tuple(functional_call(models[0], parameters, (U,)).tensors()))(stacked)
    gradients = torch.autograd.grad(sum(each.square().sum() for each in found), [*stacked.values()])
    for index, model in enumerate(models):
        alone = model(U).tensors()
        for each, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(each[index], expected)
        own = torch.autograd.grad(sum(each.square().sum() for each in alone), [*model.parameters()])
        for each, expected in zip(gradients, own, strict=True):
            torch.testing.assert_close(each[index], expected)


@KINDS
def test_bfloat16_changes_outputs_by_its_rounding(kind, generator):
    made, U = layer(kind).float(), random_feed_forward(SPEC, 2, 2, generator).to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = made(U)
    sum(tensor.float().sum() for tensor in rounded.tensors()).backward()
    for found, expected in zip(rounded.tensors(), made(U).tensors(), strict=True):
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())
