"""Feed-forward families: state dicts to weights and back, their forward pass, and specs as JSON."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from nfn_transformer import (
    NetworkSpec,
    SpecError,
    network_outputs,
    network_responses,
    network_spec,
    network_state_dict,
    network_weights,
    read_networks,
)
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.training.config import spec_from_json
from nfn_transformer.weights.feed_forward_networks import layout_of


class Sine(nn.Module):
    def forward(self, numbers):
        return torch.sin(30 * numbers)


def flat_cnn() -> nn.Sequential:
    convolutions = [nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Conv2d(3, 4, (2, 3), padding=1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4 * 20, 5), nn.ReLU(), nn.Linear(5, 2))


NETWORKS = {
    "MLP": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), {"activation": "tanh"}, (7, 6)),
    "INR": (
        lambda: nn.Sequential(nn.Linear(2, 5), Sine(), nn.Linear(5, 5), Sine(), nn.Linear(5, 1)),
        {"activation": "sine", "omega": 30.0},
        (7, 2),
    ),
    "pooled CNN": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
        ),
        {"activation": "gelu", "strides": (2,)},
        (7, 1, 9, 9),
    ),
    "flattened CNN": (flat_cnn, {"strides": (2, 1), "paddings": (0, 1)}, (7, 1, 9, 9)),
}


@pytest.mark.parametrize(("make", "facts", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_networks_are_read_run_and_written_back(make, facts, shape):
    torch.manual_seed(0)
    networks = [make().double() for _ in range(3)]
    states = [network.state_dict() for network in networks]
    spec = network_spec({key: tuple(tensor.shape) for key, tensor in states[0].items()}, facts)
    stacked = {key: torch.stack([state[key] for state in states]) for key in states[0]}
    weights = network_weights(stacked, spec)
    weights.check(spec)
    inputs = torch.randn(shape, dtype=torch.float64)
    outputs = network_outputs(inputs, weights)
    with torch.no_grad():
        expected = torch.stack([network(inputs) for network in networks])
    assert (outputs - expected).abs().max() < 1e-12
    each = network_outputs(torch.stack([inputs, 2 * inputs, -inputs]), weights)
    assert (each[2] - network_outputs(-inputs, weights)[2]).abs().max() < 1e-12
    again = network_state_dict(weights)
    assert list(again) == list(stacked)
    assert all(torch.equal(again[key], stacked[key]) for key in stacked)
    assert spec_from_json(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    assert FAMILIES["feed_forward"].shapes(spec) == {key: tuple(t.shape) for key, t in states[0].items()}
    assert torch.equal(weights[1:].to(torch.float32).biases[0], stacked["0.bias"][1:].float())
    if spec.flattened == 1:
        layout = layout_of(states[0])
        pairs = zip(weights.features().tensors(), read_networks(states, layout).tensors(), strict=True)
        assert all(torch.equal(own, read) for own, read in pairs)


def test_residual_connections_add_the_shared_maps_before_the_activation():
    spec = NetworkSpec((1, 2, 3, 2), ((3, 3), (3, 3), None), paddings=(1, 1), residuals=(-1, 0), offset=0.5)
    torch.manual_seed(0)
    state = {key: torch.randn(1, *shape).double() for key, shape in FAMILIES["feed_forward"].shapes(spec).items()}
    image = torch.randn(4, 1, 6, 6).double()
    first = functional.relu(functional.conv2d(image, state["0.weight"][0], state["0.bias"][0], padding=1))
    second = functional.conv2d(first, state["1.weight"][0], state["1.bias"][0], padding=1)
    second[:, :2] += first
    expected = functional.relu(second).mean((-2, -1)) @ state["2.weight"][0].T + state["2.bias"][0] + 0.5
    responses = network_responses(image, network_weights(state, spec))
    assert (responses[-1][0] - expected).abs().max() < 1e-12
    assert [tuple(each.shape[:3]) for each in responses] == [(1, 4, 2), (1, 4, 3), (1, 4, 2)]


def test_specs_and_shapes_that_do_not_fit_are_refused():
    shapes = {"0.weight": (3, 1, 3, 3), "0.bias": (3,), "1.weight": (2, 9), "1.bias": (2,)}
    assert network_spec(shapes, {}).flattened == 3
    with pytest.raises(SpecError, match=r"'1\.weight' has shape \(2, 8\), expected 3 inputs"):
        network_spec({**shapes, "1.weight": (2, 8)}, {})
    with pytest.raises(SpecError, match="activation 'swish', expected one of relu, "):
        network_spec(shapes, {"activation": "swish"})
    with pytest.raises(SpecError, match="2 strides of 1 convolutions"):
        network_spec(shapes, {"strides": (2, 2)})
    weights = network_weights({key: torch.zeros(2, *shape) for key, shape in shapes.items()}, network_spec(shapes, {}))
    with pytest.raises(SpecError, match="expected NetworkSpec"):
        weights.check(network_spec(shapes, {"activation": "tanh"}))
