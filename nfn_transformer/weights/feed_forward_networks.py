"""The weights of plain MLPs and CNNs, from the state dicts of any `nn.Sequential`-like network and back.

A network is a chain of linear layers and 2-D convolutions, each with a bias; activations, pooling and dropout have no
weights and are not seen. Between the last convolution and the first linear layer stands a global pooling, so that each
channel is one input. A convolution's kernel goes into channels: W^(s) [k_h, k_w] becomes k_h k_w channels of a weight
[n_s, n_(s-1)], in the order of rows, and permuting neurons or feature maps acts on all of them alike. Where layers have
fewer numbers than the largest kernel, the other channels are zero.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


@dataclass(frozen=True)
class NetworkLayout:
    """Where a network's weights stand in its state dict.

    Fields: names, of its L layers, as "0" and "2" for keys 0.weight, 0.bias, 2.weight, 2.bias; sizes n_0, ..., n_L,
    neurons or feature maps; kernels, height and width of each layer's, None where it is linear.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    kernels: tuple[tuple[int, int] | None, ...]

    @property
    def spec(self) -> FeedForwardSpec:
        """The sizes that layers between weight spaces are built from."""
        return FeedForwardSpec(self.sizes)

    @property
    def channels(self) -> int:
        """Channels of the features: numbers of the largest kernel."""
        return max(map(_numbers, self.kernels))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """State dict key -> shape, in their order."""
        found = {}
        for place, (name, kernel) in enumerate(zip(self.names, self.kernels, strict=True)):
            found[f"{name}.weight"] = (self.sizes[place + 1], self.sizes[place], *(kernel or ()))
            found[f"{name}.bias"] = (self.sizes[place + 1],)
        return found


def _numbers(kernel: tuple[int, int] | None) -> int:
    return math.prod(kernel or (1,))


def layout_of(state_dict: Mapping[str, Tensor]) -> NetworkLayout:
    """The layout of a network with this state dict, whose order is that of its layers.

    Raises:
        SpecError: it holds anything but weights and biases of linear layers and 2-D convolutions, or these do not form
            a chain; the message names the key.
    """
    keys = list(state_dict)
    if not keys:
        raise SpecError("the state dict is empty")
    names: list[str] = []
    sizes: list[int] = []
    kernels: list[tuple[int, int] | None] = []
    for weight_key, bias_key in zip(keys[::2], [*keys[1::2], ""][: len(keys[::2])], strict=True):
        name, _, kind = weight_key.rpartition(".")
        if kind != "weight" or bias_key != f"{name}.bias":
            raise SpecError(f"'{weight_key}' and '{bias_key}', expected 'LAYER.weight' and 'LAYER.bias' in turn")
        shape = tuple(state_dict[weight_key].shape)
        if len(shape) not in (2, 4):
            raise SpecError(f"'{weight_key}' has shape {shape}, expected that of a linear layer or a 2-D convolution")
        if sizes and shape[1] != sizes[-1]:
            raise SpecError(
                f"'{weight_key}' has shape {shape}, expected {sizes[-1]} inputs as the layer before has outputs (a "
                "convolution needs global pooling before a linear layer, and one group)"
            )
        if kernels and kernels[-1] is None and len(shape) == 4:
            raise SpecError(f"'{weight_key}' is a convolution after a linear layer")
        sizes = [*(sizes or [shape[1]]), shape[0]]
        names.append(name)
        kernels.append((shape[2], shape[3]) if len(shape) == 4 else None)
    layout = NetworkLayout(tuple(names), tuple(sizes), tuple(kernels))
    _check(state_dict, layout)
    return layout


def _check(state_dict: Mapping[str, Tensor], layout: NetworkLayout) -> None:
    expected = layout.shapes()
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    for key in (*expected, *found):
        if found.get(key) != expected.get(key):
            raise SpecError(f"'{key}' has shape {found.get(key)}, expected {expected.get(key)}")


def read_networks(state_dicts: Sequence[Mapping[str, Tensor]], layout: NetworkLayout) -> FeedForwardWeights:
    """The weights [b, channels, ...] of b networks of one layout.

    Raises:
        SpecError: a state dict has another layout; the message names the key and both shapes.
    """
    for state_dict in state_dicts:
        _check(state_dict, layout)
    weights = [torch.stack([state[f"{name}.weight"] for state in state_dicts]) for name in layout.names]
    biases = [torch.stack([state[f"{name}.bias"] for state in state_dicts]) for name in layout.names]
    kernels_first = [weight.reshape(*weight.shape[:3], -1).movedim(3, 1) for weight in weights]
    return FeedForwardWeights(
        tuple(_filled(weight, layout) for weight in kernels_first),
        tuple(_filled(bias[:, None], layout) for bias in biases),
    )


def _filled(tensor: Tensor, layout: NetworkLayout) -> Tensor:
    """With zeros up to all channels."""
    missing = tensor.new_zeros(len(tensor), layout.channels - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], dim=1)


def write_networks(weights: FeedForwardWeights, layout: NetworkLayout) -> list[dict[str, Tensor]]:
    """The state dicts of b networks from what `read_networks` gave, or from other weights of its shape.

    Channels that a layer has no numbers for are left out.

    Raises:
        SpecError: the weights do not have the layout's sizes and channels.
    """
    weights.check(layout.spec)
    if weights.channels != layout.channels:
        raise SpecError(f"weights have {weights.channels} channels, expected {layout.channels}")
    states: list[dict[str, Tensor]] = [{} for _ in weights.biases[0]]
    for name, kernel, weight, bias in zip(layout.names, layout.kernels, weights.weights, weights.biases, strict=True):
        weight = weight[:, : _numbers(kernel)].movedim(1, 3)
        weight = weight.unflatten(3, kernel) if kernel else weight.squeeze(3)
        for state, own_weight, own_bias in zip(states, weight, bias[:, 0], strict=True):
            state[f"{name}.weight"], state[f"{name}.bias"] = own_weight, own_bias
    return states
