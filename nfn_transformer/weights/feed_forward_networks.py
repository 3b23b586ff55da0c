"""Weights of plain MLPs and CNNs, from the state dicts of any `nn.Sequential`-like network and back.

A network is a chain of linear layers and 2-D convolutions, each with a bias. Activations, pooling and dropout have no
weights. Between the last convolution and the first linear layer stands a global pooling, so that each channel is one
input. A convolution's kernel goes into channels: W^(s) [k_h, k_w] becomes k_h k_w channels of a weight [n_s, n_(s-1)],
row by row. Permuting neurons or feature maps acts on all these channels alike. Layers with smaller kernels than the
largest have zeros in the other channels.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import FeedForwardWeights, pad_channels
from nfn_transformer.weights.spec import FeedForwardSpec

_MOST_ORDERED = 6


@dataclass(frozen=True)
class NetworkLayout:
    """Layout of a network's weights in its state dict."""

    names: tuple[str, ...]
    """Names of the L layers, as "0" and "2" for keys 0.weight, 0.bias, 2.weight, 2.bias."""
    sizes: tuple[int, ...]
    """n_0, ..., n_L, counts of neurons or feature maps."""
    kernels: tuple[tuple[int, int] | None, ...]
    """Height and width of each layer's kernel, None for a linear layer."""
    flattened: int = 1
    """Numbers of each feature map that the first linear layer reads; 1: global pooling."""

    @property
    def spec(self) -> FeedForwardSpec:
        """Return the sizes from which layers between weight spaces are built."""
        return FeedForwardSpec(self.sizes)

    @property
    def channels(self) -> int:
        """Return the count of channels of the features: the numbers of the largest kernel."""
        return max(map(_numbers, self.kernels))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return state dict key -> shape, in the order of the layers."""
        shapes: dict[str, tuple[int, ...]] = {}
        for index, (name, kernel) in enumerate(zip(self.names, self.kernels, strict=True)):
            reads_maps = index > 0 and kernel is None and self.kernels[index - 1] is not None
            inputs = self.sizes[index] * (self.flattened if reads_maps else 1)
            shapes[f"{name}.weight"] = (self.sizes[index + 1], inputs, *(kernel or ()))
            shapes[f"{name}.bias"] = (self.sizes[index + 1],)
        return shapes


def _numbers(kernel: tuple[int, int] | None) -> int:
    return math.prod(kernel or (1,))


def layout_of(state_dict: Mapping[str, Tensor], may_flatten: bool = False) -> NetworkLayout:
    """Return the layout of a network with this state dict.

    Keys are in the order of the layers, as PyTorch writes them. Of sorted keys, as of safetensors, numbers in the names
    tell the order of the layers. Without numbers it is the only order in which the sizes form a chain.

    Args:
        state_dict: of the network.
        may_flatten: True if the first linear layer may read flattened feature maps in place of pooled ones. The
            functions of this module do not read such a layout.

    Raises:
        SpecError: a key is no weight or bias of a linear layer or 2-D convolution. The layers form no chain, or their
            order cannot be told.
    """
    keys = _in_order_of_layers(state_dict)
    if not keys:
        raise SpecError("the state dict is empty")
    names: list[str] = []
    sizes: list[int] = []
    kernels: list[tuple[int, int] | None] = []
    flattened = 1
    for weight_key, bias_key in zip(keys[::2], [*keys[1::2], ""][: len(keys[::2])], strict=True):
        name, _, kind = weight_key.rpartition(".")
        if kind == "weight" and f"{name}.bias" not in state_dict:
            raise SpecError(f"'{weight_key}' has no '{name}.bias' beside it; expected both, zeros for a layer without")
        if kind != "weight" or bias_key != f"{name}.bias":
            raise SpecError(f"'{weight_key}' and '{bias_key}', expected 'LAYER.weight' and 'LAYER.bias' in turn")
        shape = tuple(state_dict[weight_key].shape)
        if len(shape) not in (2, 4):
            raise SpecError(f"'{weight_key}' has shape {shape}, expected that of a linear layer or a 2-D convolution")
        if may_flatten and kernels and kernels[-1] and len(shape) == 2 and shape[1] % sizes[-1] == 0:
            flattened, shape = shape[1] // sizes[-1], (shape[0], sizes[-1])
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
    layout = NetworkLayout(tuple(names), tuple(sizes), tuple(kernels), flattened)
    _check(state_dict, layout)
    return layout


def _in_order_of_layers(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Return the keys layer by layer, each weight before its bias.

    Raises:
        SpecError: the order of the layers cannot be told.
    """
    keys = list(state_dict)
    layers: dict[str, list[str]] = {}
    for key in keys:
        layers.setdefault(key.rpartition(".")[0], []).append(key)
    in_turn = [f"{name}.{kind}" for name in layers for kind in ("weight", "bias")]
    if keys == in_turn:
        return keys
    names = list(layers)
    if len({re.sub(r"\d+", "0", name) for name in names}) == 1:
        names.sort(key=lambda name: [int(number) for number in re.findall(r"\d{1,9}", name)])
    elif len(names) > 1:
        shapes = [tuple(state_dict.get(f"{name}.weight", torch.empty(0, 0)).shape[:2]) for name in names]
        chains = (
            [
                order
                for order in itertools.permutations(range(len(names)))
                if all(shapes[after][1:] == shapes[before][:1] for before, after in itertools.pairwise(order))
            ]
            if len(names) <= _MOST_ORDERED
            else []
        )
        if len(chains) != 1:
            raise SpecError(f"'{names[0]}' and '{names[1]}': the order of the layers cannot be told from sorted keys")
        names = [names[index] for index in chains[0]]
    kinds = {"weight": 0, "bias": 1}
    return [key for name in names for key in sorted(layers[name], key=lambda key: kinds.get(key.rpartition(".")[2], 2))]


def _check(state_dict: Mapping[str, Tensor], layout: NetworkLayout) -> None:
    expected = layout.shapes()
    shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    for key in (*expected, *shapes):
        if shapes.get(key) != expected.get(key):
            raise SpecError(f"'{key}' has shape {shapes.get(key)}, expected {expected.get(key)}")


def read_networks(state_dicts: Sequence[Mapping[str, Tensor]], layout: NetworkLayout) -> FeedForwardWeights:
    """Return the weights [b, channels, ...] of b networks of one layout.

    ```python
    networks = [torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)) for _ in range(3)]
    states = [network.state_dict() for network in networks]
    layout = nfn.layout_of(states[0])
    weights = nfn.read_networks(states, layout)  # weights.weights[0] [3, 1, 8, 4], ...
    ```

    Raises:
        SpecError: a state dict has another layout; the message names the key and both shapes.
    """
    for state_dict in state_dicts:
        _check(state_dict, layout)
    weights = [torch.stack([state[f"{name}.weight"] for state in state_dicts]) for name in layout.names]
    biases = [torch.stack([state[f"{name}.bias"] for state in state_dicts]) for name in layout.names]
    kernels_first = [weight.reshape(*weight.shape[:3], -1).movedim(3, 1) for weight in weights]
    return FeedForwardWeights(
        tuple(pad_channels(weight, layout.channels) for weight in kernels_first),
        tuple(pad_channels(bias[:, None], layout.channels) for bias in biases),
    )


def write_networks(weights: FeedForwardWeights, layout: NetworkLayout) -> list[dict[str, Tensor]]:
    """Return the state dicts of b networks from weights as `read_networks` returns them.

    Channels beyond a layer's kernel are left out.

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
        for state, *tensors in zip(states, weight, bias[:, 0], strict=True):
            state[f"{name}.weight"], state[f"{name}.bias"] = tensors
    return states
