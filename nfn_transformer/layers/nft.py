"""Attention among the neurons of each layer of a feed-forward network, by the weights that they carry.

After Neural Functional Transformers (Zhou et al. 2023, arXiv 2305.13546), whose attention runs over rows and columns of
weight matrices. Neuron j of layer s carries row j of W^(s), entry j of b^(s) and column j of W^(s+1). Queries, keys and
values are linear in the channels of each entry. A score is the mean of the products of query and key over all entries
that the two neurons carry:

    score_s(j, k) = sqrt(c) mean over entries and channels of Q_j K_k            attention_s = softmax over k
    out_j         = sum_k attention_s(j, k) V_k          for rows of W^(s), b^(s) and columns of W^(s+1) alike

An entry of W^(s) is in a row and in a column, and gets the sum of both. Permuting the neurons of a layer permutes the
rows and columns of its scores: the layer commutes with permutations of hidden neurons. A learned embedding for each
input and output keeps their meanings apart.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfn_transformer.layers.base import WeightSpaceModule
from nfn_transformer.weights.containers import FeedForwardWeights
from nfn_transformer.weights.spec import FeedForwardSpec

FREQUENCIES = (0.5, 1.0, 2.0, 4.0)
LIFTED = 1 + 2 * len(FREQUENCIES)

_SYMMETRY = "hidden neurons permuted"


def _channels_last(weights: FeedForwardWeights) -> list[Tensor]:
    """Return the tensors as [b, axes..., d], weights first and then biases."""
    return [tensor.movedim(1, -1) for tensor in weights.tensors()]


class NFTEmbedding(WeightSpaceModule[FeedForwardSpec]):
    """Embedding of feed-forward weights of d channels into e channels, inputs and outputs told apart.

    ```python
    classifier = zoo.weights(torch.arange(8)).classifier
    features = nfn.NFTBlock(classifier.spec, 4)(nfn.NFTEmbedding(classifier.spec, 1, 4)(classifier))
    ```

    Args:
        spec: sizes n_0, ..., n_L with L of at least 2.
        in_channels, out_channels: d and e.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    symmetry = _SYMMETRY

    def __init__(self, spec: FeedForwardSpec, in_channels: int, out_channels: int):
        super().__init__(spec, in_channels, out_channels)
        self.lifts = nn.ModuleList(nn.Linear(in_channels, out_channels) for _ in range(2 * spec.layers))
        self.inputs = nn.Parameter(torch.randn(spec.sizes[0], out_channels) * 0.1)
        self.outputs = nn.Parameter(torch.randn(spec.sizes[-1], out_channels) * 0.1)

    def forward(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Map weights of d channels to the embedded weights of e channels.

        Raises:
            SpecError: the weights have other sizes or channels than the layer.
        """
        self.check(weights)
        L = self.spec.layers
        lifted = [lift(tensor) for lift, tensor in zip(self.lifts, _channels_last(weights), strict=True)]
        lifted[0] = lifted[0] + self.inputs  # [b, n_1, n_0, e]
        lifted[L - 1] = lifted[L - 1] + self.outputs[:, None]
        lifted[-1] = lifted[-1] + self.outputs
        outputs = [tensor.movedim(-1, 1) for tensor in lifted]
        return FeedForwardWeights(tuple(outputs[:L]), tuple(outputs[L:]))


def fourier_lift(weights: FeedForwardWeights) -> FeedForwardWeights:
    """Return weights of one channel and size 1, each x as LIFTED channels: x, sin(f x) and cos(f x), f of FREQUENCIES.

    Layers that follow see more of each weight than its mean over neurons (Neural Functional Transformers; Tancik et al.
    2020, arXiv 2006.10739). Published frequencies are random.
    """

    def lift(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, *(wave(f * tensor) for f in FREQUENCIES for wave in (torch.sin, torch.cos))], dim=1)

    return weights.map(lift)


class NFTBlock(WeightSpaceModule[FeedForwardSpec]):
    """Block of attention among the neurons of every layer, then a perceptron on each entry's channels.

    A LayerNorm over channels stands before either, and the input is added after it.

    Args:
        spec: sizes n_0, ..., n_L with L of at least 2.
        channels: c, of input and output.

    Raises:
        SpecError: the spec has no hidden layer.
    """

    symmetry = _SYMMETRY

    def __init__(self, spec: FeedForwardSpec, channels: int):
        super().__init__(spec, channels, channels)
        tensors = 2 * spec.layers
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(tensors))
        self.queries = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(tensors))
        self.keys = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(tensors))
        self.values = nn.ModuleList(nn.Linear(channels, 2 * channels, bias=False) for _ in range(tensors))
        self.mixers = nn.ModuleList(nn.Linear(channels, channels) for _ in range(tensors))
        self.perceptrons = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
            )
            for _ in range(tensors)
        )

    def forward(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Map weights of c channels to weights of c channels.

        Raises:
            SpecError: the weights have other sizes or channels than the layer.
        """
        self.check(weights)
        L, inputs = self.spec.layers, _channels_last(weights)
        normed = [norm(tensor) for norm, tensor in zip(self.norms, inputs, strict=True)]
        Q, K, V = (
            [layer(tensor) for layer, tensor in zip(layers, normed, strict=True)]
            for layers in (self.queries, self.keys, self.values)
        )
        attention = [self._attention(s, Q, K) for s in range(L + 1)]  # [b, n_s, n_s]
        rows, columns = zip(*(value.chunk(2, dim=-1) for value in V), strict=True)
        mixed = [
            torch.einsum("bjk,bkmc->bjmc", attention[s], rows[s - 1])
            + torch.einsum("bjk,bmkc->bmjc", attention[s - 1], columns[s - 1])
            for s in range(1, L + 1)
        ]
        mixed += [torch.einsum("bjk,bkc->bjc", attention[s], rows[L + s - 1]) for s in range(1, L + 1)]
        outputs = []
        for tensor, new, mixer, perceptron in zip(inputs, mixed, self.mixers, self.perceptrons, strict=True):
            tensor = tensor + mixer(new)
            outputs.append((tensor + perceptron(tensor)).movedim(-1, 1))
        return FeedForwardWeights(tuple(outputs[:L]), tuple(outputs[L:]))

    def _attention(self, s: int, Q: list[Tensor], K: list[Tensor]) -> Float[Tensor, "b n n"]:
        """Return the attention [b, n_s, n_s] of each neuron of layer s to each other."""
        L, products, entries = self.spec.layers, [], 0
        if s > 0:
            products.append(torch.einsum("bjmc,bkmc->bjk", Q[s - 1], K[s - 1]))
            products.append(torch.einsum("bjc,bkc->bjk", Q[L + s - 1], K[L + s - 1]))
            entries += self.spec.sizes[s - 1] + 1
        if s < L:
            products.append(torch.einsum("bmjc,bmkc->bjk", Q[s], K[s]))
            entries += self.spec.sizes[s + 1]
        return (sum(products[1:], products[0]) / (entries * math.sqrt(self.in_channels))).softmax(-1)
