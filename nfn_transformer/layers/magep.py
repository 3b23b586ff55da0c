"""MAGEP layers for feed-forward ReLU networks: polynomials along paths (arXiv 2410.04213).

They commute with permuting and positively scaling hidden neurons (`groups.monomial`), as HNPS layers do, and
relate weights of different hidden layers. Of weights W^(s) and biases b^(s), s = 1, ..., L, these products transform as
a weight from layer t to layer s does:

    W^(s,t)   = W^(s) W^(s-1) ... W^(t+1)
    WW^(s)(t) = W^(s,0) Psi W^(L,t)                     Psi [n_0 x n_L]
    bW^(s)(t) = b^(s) psi W^(L,t)                       psi [1 x n_L]

and Wb^(s,t) = W^(s,t) b^(t) as the bias b^(s). Outputs are linear in them:

    W^(1)' = (W^(1) Phi + WW^(1)(0) Phi + bW^(1)(0) Phi) [n_0 x n_0 each] + b^(1) phi^T [n_0]
    W^(i)' = phi W^(i) + phi WW^(i)(i-1) + phi bW^(i)(i-1)                                        1 < i < L
    W^(L)' = Phi W^(L) + Phi WW^(L)(L-1) + Phi bW^(L)(L-1)  [n_L x n_L each]
    b^(i)' = (W^(i,0) + WW^(i)(0) + bW^(i)(0)) phi [n_0 each] + sum_t phi Wb^(i,t) + phi b^(i)    i < L
    b^(L)' = a linear map of all invariants: W^(L,0), WW^(L)(0), bW^(L)(0), Wb^(L,t), b^(L), the traces of
             WW^(s)(s) and bW^(s)(s) for 1 <= s < L, and a constant

Each Phi, phi is another one, and also indexed by output and input channel (e, d). Products are taken channel by
channel. Each sum over n numbers within them is divided by sqrt(n), so that products start at the size of their factors.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfn_transformer.layers.base import Fan, WeightSpaceLayer
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec


class Products:
    """Products of weights [b, d, ...] along paths; see the module."""

    def __init__(
        self,
        spec: FeedForwardSpec,
        weights: FeedForwardWeights,
        Psi: Float[Tensor, "d n_0 n_L"],
        psi: Float[Tensor, "d n_L"],
    ):
        self._sizes, self._L = spec.sizes, spec.layers
        self._W, self._b = weights.weights, weights.biases
        self._Psi, self._psi = Psi, psi  # [d, n_0, n_L] and [d, n_L]
        self._paths: dict[tuple[int, int], Tensor] = {}

    def W(self, s: int, t: int) -> Float[Tensor, "b d n_s n_t"]:
        """Return W^(s,t), s > t."""
        if (s, t) not in self._paths:
            product = self._W[s - 1]
            if s > t + 1:
                product = product @ self.W(s - 1, t) / math.sqrt(self._sizes[s - 1])
            self._paths[s, t] = product
        return self._paths[s, t]

    def Wb(self, s: int, t: int) -> Float[Tensor, "b d n_s"]:
        """Return Wb^(s,t), s > t >= 1."""
        return torch.einsum("bdnm,bdm->bdn", self.W(s, t), self._b[t - 1]) / math.sqrt(self._sizes[t])

    def WW(self, s: int, t: int) -> Float[Tensor, "b d n_s n_t"]:
        """Return WW^(s)(t), s >= 1, t < L."""
        n_0, n_L = self._sizes[0], self._sizes[-1]
        return self.W(s, 0) @ self._Psi @ self.W(self._L, t) / math.sqrt(n_0 * n_L)

    def bW(self, s: int, t: int) -> Float[Tensor, "b d n_s n_t"]:
        """Return bW^(s)(t), s >= 1, t < L."""
        row = torch.einsum("dk,bdkm->bdm", self._psi, self.W(self._L, t)) / math.sqrt(self._sizes[-1])
        return self._b[s - 1][..., :, None] * row[..., None, :]

    def weights(self, s: int, t: int) -> list[Tensor]:
        """Return all products that transform as a weight from layer t to layer s."""
        return [self.W(s, t), self.WW(s, t), self.bW(s, t)]

    def invariants(self) -> Float[Tensor, "b d numbers"]:
        """Return the products that the group leaves unchanged."""
        L = self._L
        matrices = [tensor.flatten(2) for tensor in self.weights(L, 0)]
        vectors = [self.Wb(L, t) for t in range(1, L)]
        traces = [self._trace(tensor, self._sizes[s]) for s in range(1, L) for tensor in (self.WW(s, s), self.bW(s, s))]
        return torch.cat([*matrices, *vectors, self._b[-1], *traces], dim=-1)

    def _trace(self, tensor: Float[Tensor, "b d n n"], size: int) -> Float[Tensor, "b d 1"]:
        return tensor.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) / math.sqrt(size)


def count_invariants(spec: FeedForwardSpec) -> int:
    """Return the count of numbers of `Products.invariants` per channel."""
    n_0, n_L, L = spec.sizes[0], spec.sizes[-1], spec.layers
    return 3 * n_L * n_0 + (L - 1) * n_L + n_L + 2 * (L - 1)


class MAGEPLayer(WeightSpaceLayer[FeedForwardSpec]):
    """Layer from feed-forward weights of d channels to feed-forward weights of e channels.

    ```python
    classifier = zoo.weights(torch.arange(8)).classifier
    features = nfn.MAGEPLayer(classifier.spec, 1, 4)(classifier)
    ```

    Args:
        spec, in_channels, out_channels: see `WeightSpaceLayer`.
        init_type: one of `layers.base.INIT_TYPES` but `reference`; no scale is squared.
        generator: source of the initial parameters and of Psi and psi; PyTorch's own if None.
        learn_Psi: learn Psi and psi instead of keeping them as they were drawn.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    symmetry = "hidden neurons permuted and scaled"

    def __init__(
        self,
        spec: FeedForwardSpec,
        in_channels: int,
        out_channels: int,
        init_type: str = "xavier_normal",
        generator: torch.Generator | None = None,
        learn_Psi: bool = False,
    ):
        self._learn_Psi = learn_Psi
        super().__init__(spec, in_channels, out_channels, init_type, generator)

    def add_terms(self) -> None:
        """See `WeightSpaceLayer`."""
        d, e, L = self.in_channels, self.out_channels, self.spec.layers
        n_0, n_L = self.spec.sizes[0], self.spec.sizes[-1]
        self.Psi, self.psi = (
            nn.Parameter(Psi) if self._learn_Psi else nn.Buffer(Psi)
            for Psi in (torch.empty(d, n_0, n_L), torch.empty(d, n_L))
        )
        self.first_weight = nn.Parameter(torch.empty(3, e, n_0, d, n_0))
        self.first_weight_from_bias = nn.Parameter(torch.empty(e, n_0, d))
        self.middle_weights = nn.ParameterList(torch.empty(3, e, d) for _ in range(L - 2))
        self.last_weight = nn.Parameter(torch.empty(3, e, n_L, d, n_L))
        self.biases_from_weights = nn.ParameterList(torch.empty(3, e, d, n_0) for _ in range(L - 1))
        # For b^(i): Wb^(i,1), ..., Wb^(i,i-1), and b^(i) itself.
        self.biases_from_biases = nn.ParameterList(torch.empty(i, e, d) for i in range(1, L))
        self.last_bias = nn.Parameter(torch.empty(e, n_L, d, count_invariants(self.spec)))
        self.constant = nn.Parameter(torch.empty(e, n_L))

    def fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`."""
        d, e, n_0, n_L = self.in_channels, self.out_channels, self.spec.sizes[0], self.spec.sizes[-1]
        yield self.first_weight, Fan(d * (3 * n_0 + 1), e * n_0)
        yield self.first_weight_from_bias, Fan(d * (3 * n_0 + 1), e * n_0)
        yield from ((phi, Fan(3 * d, e)) for phi in self.middle_weights)
        yield self.last_weight, Fan(3 * d * n_L, e * n_L)
        yield from ((Phi, Fan(d * (3 * n_0 + i), e)) for i, Phi in enumerate(self.biases_from_weights, start=1))
        yield from ((phi, Fan(d * (3 * n_0 + len(phi)), e)) for phi in self.biases_from_biases)
        yield self.last_bias, Fan(d * count_invariants(self.spec), e * n_L)
        yield self.constant, Fan(1, e * n_L)

    def reset_parameters(self, init_type: str, generator: torch.Generator | None = None) -> None:
        """Draw Psi, psi and then every term anew."""
        with torch.no_grad():
            for Psi in (self.Psi, self.psi):
                Psi.normal_(generator=generator)
        super().reset_parameters(init_type, generator)

    def forward(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Map feed-forward weights of d channels to feed-forward weights of e channels.

        Raises:
            SpecError: the weights have other sizes or channels than the layer.
        """
        self.check(weights)
        L, products = self.spec.layers, Products(self.spec, weights, self.Psi, self.psi)
        first = torch.einsum("fepdq,fbdnq->benp", self.first_weight, torch.stack(products.weights(1, 0)))
        first = first + torch.einsum("epd,bdn->benp", self.first_weight_from_bias, weights.biases[0])
        middle = [
            torch.einsum("fed,fbdnm->benm", phi, torch.stack(products.weights(i, i - 1)))
            for i, phi in enumerate(self.middle_weights, start=2)
        ]
        last = torch.einsum("fekdl,fbdlm->bekm", self.last_weight, torch.stack(products.weights(L, L - 1)))
        biases = [
            self._hidden_bias(i, products, weights.biases[i - 1], *parameters)
            for i, parameters in enumerate(zip(self.biases_from_weights, self.biases_from_biases, strict=True), start=1)
        ]
        last_bias = torch.einsum("ekdj,bdj->bek", self.last_bias, products.invariants()) + self.constant
        return FeedForwardWeights((first, *middle, last), (*biases, last_bias))

    def _hidden_bias(
        self,
        i: int,
        products: Products,
        bias: Float[Tensor, "b d n"],
        Phi: Float[Tensor, "3 e d n_0"],
        phi: Float[Tensor, "i e d"],
    ) -> Float[Tensor, "b e n"]:
        """Return the output b^(i) of a hidden layer."""
        vectors = torch.stack([*(products.Wb(i, t) for t in range(1, i)), bias])
        from_weights = torch.einsum("fedq,fbdnq->ben", Phi, torch.stack(products.weights(i, 0)))
        return from_weights + torch.einsum("ted,tbdn->ben", phi, vectors)
