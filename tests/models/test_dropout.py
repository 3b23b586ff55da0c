"""Dropout by hashes: the right share, independent of layer, network, epoch and company; nothing outside training."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from nfn_transformer.hashing import splitmix64
from nfn_transformer.models.branch import Chain, Dropout, dropouts
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor

KEYS = splitmix64(torch.arange(64))


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(64, *shape, dtype=torch.float64)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_a_share_is_dropped_and_the_mean_stays(probability):
    dropped = Dropout(probability)(ones(50, 20), KEYS)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / (1 - probability))]
    # 64,000 draws: five standard errors of the share.
    error = 5 * (probability * (1 - probability) / dropped.numel()) ** 0.5
    assert (dropped == 0).double().mean().item() == pytest.approx(probability, abs=error)
    for dim in ((0, 1), (0, 2), (1, 2)):
        along = (dropped == 0).double().mean(dim)
        assert ((along - probability).abs() < 6 * (0.25 / 1000) ** 0.5).all()


def test_networks_layers_and_keys_choose_differently(small):
    model = build_predictor(small.spec, ModelConfig(enc_mode="statnn", dropout=0.5), seed=1)
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    assert [layer.number for layer in layers] == list(range(len(layers)))
    first, second, *_ = layers
    masks = [first(ones(400), KEYS), second(ones(400), KEYS), first(ones(400), splitmix64(KEYS))]
    masks += [masks[0].roll(1, 0), masks[0].roll(-1, 0), masks[0].roll(1, 1)]
    correlations = torch.corrcoef(torch.stack([mask.flatten() for mask in masks])) - torch.eye(6)
    assert correlations.abs().max() < 5 / masks[0].numel() ** 0.5


def test_a_network_is_treated_alike_in_any_company():
    numbers, layer = torch.randn(64, 3, 5, generator=torch.Generator().manual_seed(0)), Dropout(0.4)
    whole = layer(numbers, KEYS)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))[:20]
    assert torch.equal(layer(numbers[order], KEYS[order]), whole[order])
    stacked = vmap(layer)(numbers.unflatten(0, (4, 16)), KEYS.unflatten(0, (4, 16)))
    assert torch.equal(stacked.flatten(0, 1), whole)


def test_nothing_is_dropped_outside_training_or_without_keys():
    numbers, layer = ones(7), Dropout(0.5)
    assert layer(numbers, None) is numbers
    assert not torch.equal(layer(numbers, KEYS), numbers)
    assert layer.eval()(numbers, KEYS) is numbers
    assert Dropout(0.0)(numbers, KEYS) is numbers
    assert dropouts(0.0) == []
    assert layer.train()(ones(7)[:0], KEYS[:0]).shape == (0, 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays(dtype):
    assert Dropout(0.3)(ones(5).to(dtype), KEYS).dtype == dtype


def test_a_chain_hands_on_the_keys_and_gradients_pass_where_nothing_was_dropped():
    chain = Chain(nn.Identity(), Dropout(0.5), nn.Identity())
    numbers = ones(9).requires_grad_()
    dropped = chain(numbers, KEYS)
    assert torch.equal(dropped, chain[1](numbers, KEYS))
    dropped.sum().backward()
    assert torch.equal(numbers.grad, dropped.detach())
    assert torch.equal(chain(numbers), numbers)
