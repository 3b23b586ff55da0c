"""HNPS layers and pooling for feed-forward ReLU networks (Monomial-NFN, arXiv 2409.11697).

The layers commute with permuting and positively scaling hidden neurons (`groups.monomial`):

    W^(1)' = W^(1) Phi [n_0 x n_0] + b^(1) phi^T [n_0]      b^(1)' = W^(1) phi [n_0] + phi b^(1)
    W^(i)' = phi W^(i)                                      b^(i)' = phi b^(i)              1 < i < L
    W^(L)' = Phi [n_L x n_L] W^(L)                          b^(L)' = Phi [n_L x n_L] b^(L) + const [n_L]

Every Phi, phi is also indexed by output and input channel (e, d).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfn_transformer.layers.base import Fan, WeightSpaceLayer, WeightSpaceModule
from nfn_transformer.layers.reference_scales import grouped
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec

_SYMMETRY = "hidden neurons permuted and scaled"


class HNPSLayer(WeightSpaceLayer[FeedForwardSpec]):
    """Layer from feed-forward weights of d channels to feed-forward weights of e channels.

    ```python
    classifier = zoo.weights(torch.arange(8)).classifier
    features = nfn.relu(nfn.HNPSLayer(classifier.spec, 1, 4)(classifier))
    numbers = nfn.HNPSPooling(classifier.spec, 4)(features)  # [8, numbers]
    ```

    Arguments: see `WeightSpaceLayer`; no scale is squared.
    """

    symmetry = _SYMMETRY

    def add_terms(self) -> None:
        """See `WeightSpaceLayer`."""
        d, e, n_0, n_L, inner = *self._sizes(), self.spec.layers - 2
        self.first_weight = nn.Parameter(torch.empty(e, n_0, d, n_0))
        self.first_weight_from_bias = nn.Parameter(torch.empty(e, n_0, d))
        self.first_bias_from_weight = nn.Parameter(torch.empty(e, d, n_0))
        self.first_bias = nn.Parameter(torch.empty(e, d))
        self.middle_weights = nn.ParameterList(torch.empty(e, d) for _ in range(inner))
        self.middle_biases = nn.ParameterList(torch.empty(e, d) for _ in range(inner))
        self.last_weight = nn.Parameter(torch.empty(e, n_L, d, n_L))
        self.last_bias = nn.Parameter(torch.empty(e, n_L, d, n_L))
        self.constant = nn.Parameter(torch.empty(e, n_L))

    def fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`."""
        d, e, n_0, n_L = self._sizes()
        yield self.first_weight, Fan(d * n_0, e * n_0)
        yield self.first_weight_from_bias, Fan(d, e * n_0)
        yield self.first_bias_from_weight, Fan(d * n_0, e)
        yield self.first_bias, Fan(d, e)
        yield from ((phi, Fan(d, e)) for phi in (*self.middle_weights, *self.middle_biases))
        yield self.last_weight, Fan(d * n_L, e * n_L)
        yield self.last_bias, Fan(d * n_L, e * n_L)
        yield self.constant, Fan(1, e * n_L)

    def reference_fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`; the terms of one output are a group."""
        terms = list(self.fans())
        for group in (terms[:2], terms[2:4], *([term] for term in terms[4:-2]), terms[-2:]):
            yield from grouped(*group)

    def _sizes(self) -> tuple[int, int, int, int]:
        """Return d, e, n_0 and n_L."""
        return self.in_channels, self.out_channels, self.spec.sizes[0], self.spec.sizes[-1]

    def forward(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Map feed-forward weights of d channels to feed-forward weights of e channels.

        Raises:
            SpecError: the weights have other sizes or channels than the layer.
        """
        self.check(weights)
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


class HNPSPooling(WeightSpaceModule[FeedForwardSpec]):
    """Pooling from feed-forward weights of d channels to numbers [b, out_channels] that the group leaves unchanged.

    A hidden neuron's scale multiplies all channels of an entry alike. So each entry is divided by the L2 norm of its
    channels; an entry of norm zero stays zero. Then follow a learned weight and bias per channel, and the mean over the
    permuted dimensions. The last bias passes as it is.

    Args:
        spec: sizes n_0, ..., n_L with L of at least 2.
        channels: d.
        init_type: one of `layers.base.INIT_TYPES`; `reference` draws weights and biases from the standard normal
            distribution, any other begins at 1 and 0.
        generator: source of the initial parameters; PyTorch's own if None.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    symmetry = _SYMMETRY

    def __init__(
        self,
        spec: FeedForwardSpec,
        channels: int,
        init_type: str = "xavier_normal",
        generator: torch.Generator | None = None,
    ):
        n_0, n_L, L = spec.sizes[0], spec.sizes[-1], spec.layers
        super().__init__(spec, channels, out_channels=channels * (n_0 + n_L + (L - 2) + (L - 1) + n_L))
        self.scale = nn.Parameter(torch.ones(2 * L - 1, channels))
        self.shift = nn.Parameter(torch.zeros(2 * L - 1, channels))
        if init_type == "reference":
            for parameter in (self.scale, self.shift):
                nn.init.normal_(parameter, generator=generator)

    def forward(self, weights: FeedForwardWeights) -> Float[Tensor, "b out"]:
        """Map feed-forward weights of d channels to invariants [b, out_channels].

        Raises:
            SpecError: the weights have other sizes or channels than the pooling.
        """
        self.check(weights)
        last = self.spec.layers - 1
        over = [(-2,), *((-2, -1) for _ in range(last - 1)), (-1,), *((-1,) for _ in range(last))]
        pooled = [
            self._scale_free(tensor, index).mean(dimensions).flatten(1)
            for index, (tensor, dimensions) in enumerate(
                zip((*weights.weights, *weights.biases[:-1]), over, strict=True)
            )
        ]
        return torch.cat([*pooled, weights.biases[-1].flatten(1)], dim=1)

    def _scale_free(self, tensor: Float[Tensor, "b d *n"], index: int) -> Float[Tensor, "b d *n"]:
        """Return the index-th tensor free of scales, with its weight and bias per channel."""
        norm = torch.linalg.vector_norm(tensor, dim=1, keepdim=True)  # [b, 1, ...]
        unit = tensor / torch.where(norm == 0, 1.0, norm)
        per_channel = (1, -1, *(1 for _ in range(tensor.ndim - 2)))
        return unit * self.scale[index].view(per_channel) + self.shift[index].view(per_channel)
