"""Forward pass of fully connected networks, for b networks at once, as a plain function of their weights."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.weights.containers import FeedForwardWeights

Activation = Callable[[Tensor], Tensor]


def sine(omega: float) -> Activation:
    """Return the activation x -> sin(omega x) of SIRENs (Sitzmann et al. 2020, arXiv 2006.09661)."""
    return lambda numbers: torch.sin(omega * numbers)


def feed_forward_outputs(
    inputs: Float[Tensor, "*b n inputs"], weights: FeedForwardWeights, activation: Activation
) -> Float[Tensor, "b n outputs"]:
    """Return the outputs [b, n, n_L] of b networks for n inputs.

    Args:
        inputs: [n, n_0] for all networks, or [b, n, n_0].
        weights: of b networks of sizes n_0, ..., n_L, with one channel.
        activation: after every layer but the last.
    """
    *hidden, last = [(W.squeeze(1), b.squeeze(1)) for W, b in zip(weights.weights, weights.biases, strict=True)]
    for W, b in hidden:
        inputs = activation(inputs @ W.transpose(1, 2) + b[:, None])
    W, b = last
    return inputs @ W.transpose(1, 2) + b[:, None]
