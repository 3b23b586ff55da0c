"""Forward pass of feed-forward networks, for b networks at once, as a plain function of their weights."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.spec import NetworkSpec

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "none": lambda numbers: numbers,
}
"""Activations by their names; that of `sine` is sin(omega x), of SIRENs (arXiv 2006.09661)."""


def network_outputs(inputs: Tensor, weights: NetworkWeights) -> Float[Tensor, "b n outputs"]:
    """Return the outputs [b, n, n_L] of b networks for n inputs, see `network_responses`."""
    return network_responses(inputs, weights)[-1]


def network_responses(
    inputs: Tensor, weights: NetworkWeights, activation: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """Return what each layer of b networks answers to n inputs, after its activation.

    Args:
        inputs: coordinates or features [n, n_0]; with convolutions images [n, n_0, height, width]. One set [b, n, ...]
            for each network is possible.
        weights: of b networks.
        activation: of numbers [b, ...], in place of the spec's, where networks differ in it.

    Returns:
        For each layer [b, n, n_(s+1)], or maps [b, n, n_(s+1), height, width]; the last one holds the outputs.
    """
    spec, convolutions = weights.spec, weights.spec.convolutions
    activation = activation or _ACTIVATIONS.get(spec.activation, lambda x: torch.sin(spec.omega * x))
    b = weights.batch
    shared_dims = 4 if convolutions else 2
    numbers = inputs.expand(b, *inputs.shape) if inputs.ndim == shared_dims else inputs
    responses: list[Tensor] = []
    for layer, (W, bias) in enumerate(zip(weights.weights, weights.biases, strict=True)):
        if layer < convolutions:
            numbers = _convolve(numbers, W, bias, spec, layer)
            other = spec.residuals[layer] if spec.residuals else -1
            if other >= 0:
                shared = min(numbers.shape[2], responses[other].shape[2])
                added = numbers[:, :, :shared] + responses[other][:, :, :shared]
                numbers = torch.cat([added, numbers[:, :, shared:]], dim=2)
        else:
            if layer == convolutions and convolutions:
                numbers = numbers.flatten(2) if spec.flattened > 1 else numbers.mean((-2, -1))
            numbers = numbers @ W.flatten(2).transpose(1, 2) + bias[:, None]
        is_last = layer == spec.layers - 1
        numbers = numbers + spec.offset if is_last else activation(numbers)
        responses.append(numbers)
    return responses


def pixel_grid(
    height: int, width: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """Return the coordinates [2, height * width] of pixels, row by row: first the column's, then the row's, in [-1, 1].

    This is the order of the DWSNets zoo.
    """
    rows, columns = (torch.linspace(-1, 1, count, dtype=dtype, device=device) for count in (height, width))
    return torch.stack([columns.repeat(height), rows.repeat_interleave(width)])


def draw_pictures(weights: NetworkWeights, side: int) -> Float[Tensor, "b colours side side"]:
    """Return the pictures that b INRs draw on the grid of `pixel_grid`."""
    like = weights.biases[0]
    grid = pixel_grid(side, side, like.dtype, like.device)  # on the device, as a CUDA graph copies nothing to it
    return network_outputs(grid.T, weights).transpose(1, 2).unflatten(2, (side, side))


def _convolve(maps: Tensor, W: Tensor, bias: Tensor, spec: NetworkSpec, layer: int) -> Tensor:
    """Return the maps [b, n, n_(s+1), ...] before the activation; each network is a group of one convolution."""
    b = len(maps)
    side_by_side = maps.transpose(0, 1).flatten(1, 2)  # [n, b n_s, height, width]
    stride = spec.strides[layer] if spec.strides else 1
    padding = spec.paddings[layer] if spec.paddings else 0
    out = functional.conv2d(side_by_side, W.flatten(0, 1), bias.flatten(), stride, padding, groups=b)
    return out.unflatten(1, (b, -1)).transpose(0, 1)
