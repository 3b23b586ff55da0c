"""HNPS layers and pooling for feed-forward ReLU networks (Monomial-NFN, arXiv 2409.11697).

The layers commute with permuting and positively scaling hidden neurons (`groups.monomial`):

    W^(1)' = W^(1) Phi [n_0 x n_0] + b^(1) phi^T [n_0]      b^(1)' = W^(1) phi [n_0] + phi b^(1)
    W^(i)' = phi W^(i)                                      b^(i)' = phi b^(i)              1 < i < L
    W^(L)' = Phi [n_L x n_L] W^(L)                          b^(L)' = Phi [n_L x n_L] b^(L) + const [n_L]

Every Phi, phi is also indexed by output and input channel (e, d).
"""

import torch
from torch import Tensor, nn

from nfn_transformer.errors import SpecError
from nfn_transformer.layers.initialization import Fan, initialize_term
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


def check_weights(weights: FeedForwardWeights, spec: FeedForwardSpec, channels: int) -> None:
    """Raise SpecError unless weights have these sizes and channels."""
    weights.check(spec)
    if weights.channels != channels:
        raise SpecError(f"feed-forward weights have {weights.channels} channels, expected {channels}")


def require_hidden_layer(spec: FeedForwardSpec) -> None:
    """Raise SpecError where there is no hidden layer."""
    if spec.layers < 2:
        raise SpecError(f"feed-forward sizes {spec.sizes} have no hidden layer; at least one is needed")


class HNPSLayer(nn.Module):
    """Feed-forward weights of d channels to feed-forward weights of e channels.

    Args:
        spec: sizes n_0, ..., n_L with L of at least 2.
        in_channels, out_channels: d and e.
        init_type: one of `layers.initialization.INIT_TYPES`, without the squares of the polynomial layers.
        generator: source of the initial parameters; PyTorch's own where None.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    def __init__(
        self,
        spec: FeedForwardSpec,
        in_channels: int,
        out_channels: int,
        init_type: str = "xavier_normal",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        require_hidden_layer(spec)
        self.spec, self.in_channels = spec, in_channels
        d, e, n_0, n_L = in_channels, out_channels, spec.sizes[0], spec.sizes[-1]
        self.first_weight = nn.Parameter(torch.empty(e, n_0, d, n_0))
        self.first_weight_from_bias = nn.Parameter(torch.empty(e, n_0, d))
        self.first_bias_from_weight = nn.Parameter(torch.empty(e, d, n_0))
        self.first_bias = nn.Parameter(torch.empty(e, d))
        self.middle_weights = nn.ParameterList(torch.empty(e, d) for _ in range(spec.layers - 2))
        self.middle_biases = nn.ParameterList(torch.empty(e, d) for _ in range(spec.layers - 2))
        self.last_weight = nn.Parameter(torch.empty(e, n_L, d, n_L))
        self.last_bias = nn.Parameter(torch.empty(e, n_L, d, n_L))
        self.constant = nn.Parameter(torch.empty(e, n_L))
        fans = [
            (self.first_weight, Fan(d * n_0, e * n_0)),
            (self.first_weight_from_bias, Fan(d, e * n_0)),
            (self.first_bias_from_weight, Fan(d * n_0, e)),
            (self.first_bias, Fan(d, e)),
            *((phi, Fan(d, e)) for phi in (*self.middle_weights, *self.middle_biases)),
            (self.last_weight, Fan(d * n_L, e * n_L)),
            (self.last_bias, Fan(d * n_L, e * n_L)),
            (self.constant, Fan(1, e * n_L)),
        ]
        for term, fan in fans:
            initialize_term(term, fan, init_type, generator)

    def forward(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Feed-forward weights of d channels to feed-forward weights of e channels.

        Raises:
            SpecError: the weights do not have the sizes or channels that the layer was built for.
        """
        check_weights(weights, self.spec, self.in_channels)
        (first, *middle, last), (first_bias, *middle_biases, last_bias) = weights.weights, weights.biases
        new_first = torch.einsum("epdq,bdnq->benp", self.first_weight, first)
        new_first = new_first + torch.einsum("epd,bdn->benp", self.first_weight_from_bias, first_bias)
        new_first_bias = torch.einsum("edq,bdnq->ben", self.first_bias_from_weight, first)
        new_first_bias = new_first_bias + torch.einsum("ed,bdn->ben", self.first_bias, first_bias)
        matrices = [torch.einsum("ed,bdnm->benm", *pair) for pair in zip(self.middle_weights, middle, strict=True)]
        biases = [torch.einsum("ed,bdn->ben", *pair) for pair in zip(self.middle_biases, middle_biases, strict=True)]
        new_last = torch.einsum("ekdl,bdlm->bekm", self.last_weight, last)
        new_last_bias = torch.einsum("ekdl,bdl->bek", self.last_bias, last_bias) + self.constant
        return FeedForwardWeights(
            weights=(new_first, *matrices, new_last),
            biases=(new_first_bias, *biases, new_last_bias),
        )


def relu(weights: FeedForwardWeights) -> FeedForwardWeights:
    """Pointwise ReLU, which commutes with permutations and positive scales."""
    return weights.map(torch.relu)


class HNPSPooling(nn.Module):
    """Feed-forward weights of d channels to numbers [b, features] that the group leaves unchanged.

    A hidden neuron's scale multiplies all channels of an entry alike, so each entry is divided by the
    L2 norm of its channels (an entry whose norm is zero stays zero); then follow a learned weight and
    bias per channel and the mean over the permuted dimensions. The last bias passes as it is.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    def __init__(self, spec: FeedForwardSpec, channels: int):
        super().__init__()
        require_hidden_layer(spec)
        self.spec, self.channels = spec, channels
        tensors = 2 * spec.layers - 1
        self.scale = nn.Parameter(torch.ones(tensors, channels))
        self.shift = nn.Parameter(torch.zeros(tensors, channels))

    @property
    def features(self) -> int:
        """Numbers that come out per network."""
        n_0, n_L, L = self.spec.sizes[0], self.spec.sizes[-1], self.spec.layers
        return self.channels * (n_0 + n_L + (L - 2) + (L - 1) + n_L)

    def forward(self, weights: FeedForwardWeights) -> Tensor:
        """Feed-forward weights of d channels to invariants [b, features].

        Raises:
            SpecError: the weights do not have the sizes or channels that the pooling was built for.
        """
        check_weights(weights, self.spec, self.channels)
        last = self.spec.layers - 1
        over = [(-2,), *((-2, -1) for _ in range(last - 1)), (-1,), *((-1,) for _ in range(last))]
        pooled = [
            self._scale_free(tensor, index).mean(dimensions).flatten(1)
            for index, (tensor, dimensions) in enumerate(
                zip((*weights.weights, *weights.biases[:-1]), over, strict=True)
            )
        ]
        return torch.cat([*pooled, weights.biases[-1].flatten(1)], dim=1)

    def _scale_free(self, tensor: Tensor, index: int) -> Tensor:
        norm = torch.linalg.vector_norm(tensor, dim=1, keepdim=True)  # [b, 1, ...]
        unit = tensor / torch.where(norm == 0, 1.0, norm)
        per_channel = (1, -1, *(1 for _ in range(tensor.ndim - 2)))
        return unit * self.scale[index].view(per_channel) + self.shift[index].view(per_channel)
