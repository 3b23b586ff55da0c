"""Weights of plain MLPs and CNNs: a round trip, permutations that networks do not see, and what is refused."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nfn_transformer import (
    HNPLinear,
    HNPPooling,
    HNPSLayer,
    MonomialElement,
    NetworkLayout,
    NPLinear,
    NPPooling,
    PermutationElement,
    SpecError,
    equivariance_error,
    layout_of,
    read_networks,
    relu,
    write_networks,
)


def mlp(*sizes: int) -> nn.Sequential:
    layers = [module for n, m in itertools.pairwise(sizes) for module in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def cnn(channels=(1, 4, 5), kernels=((3, 3), (2, 4)), hidden=6, classes=3) -> nn.Sequential:
    sizes = zip(channels, channels[1:], kernels, strict=False)
    convolutions = [module for n, m, kernel in sizes for module in (nn.Conv2d(n, m, kernel), nn.ReLU())]
    head = [nn.Linear(channels[-1], hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), *head)


def states(make, count=3) -> list[dict]:
    torch.manual_seed(0)
    return [make().double().state_dict() for _ in range(count)]


def test_the_layout_of_a_cnn():
    layout = layout_of(cnn().state_dict())
    assert layout == NetworkLayout(("0", "2", "7", "9"), (1, 4, 5, 6, 3), ((3, 3), (2, 4), None, None))
    assert layout.channels == 9
    assert layout.spec.sizes == (1, 4, 5, 6, 3)
    assert layout.shapes() == {key: tuple(tensor.shape) for key, tensor in cnn().state_dict().items()}


@settings(max_examples=25, deadline=None)
@given(
    channels=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    hidden=st.integers(1, 4),
)
def test_features_hold_every_number_once_and_lead_back(channels, kernel, hidden):
    kernels = (kernel, (2, 2), (1, 3))[: len(channels) - 1]
    found = states(lambda: cnn(tuple(channels), kernels, hidden))
    layout = layout_of(found[0])
    U = read_networks(found, layout)
    U.check(layout.spec)
    assert U.channels == layout.channels
    numbers = sum(tensor.numel() for tensor in found[0].values())
    assert sum((tensor[0] != 0).sum() for tensor in U.tensors()) == numbers
    for state, again in zip(found, write_networks(U, layout), strict=True):
        assert list(again) == list(state)
        assert all(torch.equal(again[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("make", [cnn, lambda: mlp(6, 5, 4, 3)], ids=["CNN", "MLP"])
def test_permuted_and_scaled_networks_are_the_same_functions(make, generator):
    """The group acts on features; what is written back computes the same."""
    (state,), network = states(make, 1), make().double().eval()
    layout = layout_of(state)
    shape = (5, 1, 9, 8) if layout.kernels[0] else (5, 6)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    network.load_state_dict(state)
    before = network(inputs)
    for kind in (PermutationElement, MonomialElement):
        g = kind.sample(layout.spec, generator)
        (moved,) = write_networks(g.act(read_networks([state], layout)), layout)
        assert not torch.equal(moved["0.weight"], state["0.weight"])
        network.load_state_dict(moved)
        assert (network(inputs) - before).abs().max() < 1e-12


@pytest.mark.parametrize("make", [cnn, lambda: mlp(6, 5, 4, 3)], ids=["CNN", "MLP"])
def test_stacks_of_layers_are_invariant_on_them(make, generator):
    found = states(make)
    layout = layout_of(found[0])
    U, d = read_networks(found, layout), layout.channels
    for linear, pooling, outer in ((HNPLinear, HNPPooling, False), (NPLinear, NPPooling, True)):
        first = linear(layout.spec, d, 4, generator=generator).double()
        second = linear(layout.spec, 4, 3, generator=generator).double()
        pool, g = pooling(layout.spec, 3), PermutationElement.sample(layout.spec, generator, outer)
        assert equivariance_error(lambda W, a=first, b=second, p=pool: p(relu(b(relu(a(W))))), g, U) < 1e-9
    layer = HNPSLayer(layout.spec, d, 2, generator=generator).double()
    g = MonomialElement.sample(layout.spec, generator)
    assert equivariance_error(layer, g, U) < 1e-9


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"one": nn.Linear(2, 3), "two": nn.Linear(3, 1)})


def test_layers_may_have_any_names():
    state = Named().state_dict()
    layout = layout_of(state)
    assert layout.names == ("body.one", "body.two")
    assert list(write_networks(read_networks([state], layout), layout)[0]) == list(state)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(2, 3, bias=False)), r"'0\.weight' has no '0\.bias' beside it; expected both"),
        (
            nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2)),
            r"'0\.weight' has no '0\.bias' beside it; expected both",
        ),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), r"'1\.weight' has shape \(3,\), expected"),
        (nn.Sequential(nn.Conv1d(2, 3, 3)), r"'0\.weight' has shape \(3, 2, 3\), expected that of a linear layer or"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(8, 3)),
            r"'1\.weight' has shape \(3, 8\), expected 2 inputs",
        ),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2)), r"'1\.weight' .* expected 4 inputs"),
        (nn.Sequential(nn.Linear(2, 3), nn.Conv2d(3, 2, 1)), r"'1\.weight' is a convolution after a linear layer"),
        (nn.Sequential(nn.ReLU()), "the state dict is empty"),
    ],
)
def test_what_is_no_chain_of_layers_is_refused(network, message):
    with pytest.raises(SpecError, match=message):
        layout_of(network.state_dict())


def test_networks_of_another_layout_are_refused():
    layout = layout_of(mlp(6, 5, 3).state_dict())
    with pytest.raises(SpecError, match=r"'0\.weight' has shape \(4, 6\), expected \(5, 6\)"):
        read_networks([mlp(6, 5, 3).state_dict(), mlp(6, 4, 3).state_dict()], layout)
    with pytest.raises(SpecError, match=r"'4\.weight' has shape \(3, 3\), expected None"):
        read_networks([mlp(6, 5, 3, 3).state_dict()], layout)
    U = read_networks([cnn().state_dict()], layout_of(cnn().state_dict()))
    with pytest.raises(
        SpecError,
        match=r"weights have the tensors .*biases\[3\], expected weights\[0\], weights\[1\], biases\[0\], biases\[1\]",
    ):
        write_networks(U, layout)
