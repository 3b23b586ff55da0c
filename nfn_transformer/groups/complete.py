"""All known symmetries of the zoo's networks: the published group (`groups.published`) and five further kinds.

The networks have LayerNorms without affine parameters and no residual connections. So their function also stays, for
every network and input, under

    rotations     the coordinates after an attention and after a block are multiplied by an orthogonal matrix R with
                  R 1 = 1, permutations among them, and what reads them by its inverse: the LayerNorm between keeps mean
                  and deviation, so that it commutes with R
    hidden scales (W^A, b^A) entry by entry times c_A > 0, the rows of W^B divided by it: ReLU(c x) = c ReLU(x)
    scales        W^O times c_O > 0, (W^B, b^B) times c_B > 0: a LayerNorm follows, which divides by the deviation
    output shifts anything constant along the output coordinate added to rows of W^O, W^B, to b^B, and across the
                  channels of the embedding's kernel and bias: a LayerNorm follows, which subtracts the mean
    input shifts  anything constant along the input coordinate added to columns of W^Q, W^K, W^V, W^A and of the
                  classifier's first layer: their input is centred by a LayerNorm, so what is added is multiplied by 0

Each is proved by the reason beside it. The scales c_O and c_B alone meet the LayerNorm's epsilon, 1e-5. They keep the
function only as far as the epsilon is small against the variance. The first block's input coordinates stay, as the
positional encoding tells them apart. (R = -1 is a symmetry as well, and no element here.)

An element acts on each tensor as a linear map, then a shift: W^Q_i -> R_in^T W^Q_tau(i) M_tau(i)^T + 1 u_Q^T, and so
on. Shifts are moved by linear maps into shifts, so that products and inverses are elements again.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.groups.complete_block import CompleteBlockElement, random_scales, random_shift
from nfn_transformer.groups.element import Element, ProductElement
from nfn_transformer.weights.containers import EmbeddingWeights, FeedForwardWeights, TransformerWeights
from nfn_transformer.weights.spec import EmbeddingSpec, FeedForwardSpec, TransformerSpec


@dataclass(frozen=True)
class CompleteClassifierElement(Element):
    """Part of an element in a classifier of two layers."""

    pi: Int64[Tensor, " n"]
    """Permutation of the hidden neurons."""
    c: Float[Tensor, " n"]
    """Positive scales of the hidden neurons."""
    u: Float[Tensor, " n"]
    """Shifts along the input coordinate of the first layer."""

    @classmethod
    def sample(cls, spec: FeedForwardSpec, generator: torch.Generator, dtype: torch.dtype, amount: float) -> Self:
        """Return a random element; see `CompleteElement.sample`."""
        hidden = spec.sizes[1]
        return cls(
            torch.randperm(hidden, generator=generator),
            random_scales((hidden,), generator, dtype),
            random_shift((hidden,), generator, dtype, amount),
        )

    def act(self, weights: FeedForwardWeights, R_in: Float[Tensor, "D D"]) -> FeedForwardWeights:
        """Return the transformed weights, with the input coordinates turned by R_in."""
        (first, second), (bias, last) = weights.weights, weights.biases
        moved = self.c[:, None] * first[:, :, self.pi] @ R_in + self.u[:, None]
        return FeedForwardWeights((moved, second[..., self.pi] / self.c), (self.c * bias[..., self.pi], last))

    def __matmul__(self, first: Self) -> Self:
        return type(self)(first.pi[self.pi], first.c[self.pi] * self.c, self.u + self.c * first.u[self.pi])

    def __invert__(self) -> Self:
        pi = torch.argsort(self.pi)
        c = 1 / self.c[pi]
        return type(self)(pi, c, -c * self.u[pi])


@dataclass(frozen=True)
class EmbeddingShifts(Element):
    """Shifts of all output channels of the embedding."""

    kernel: Float[Tensor, "channels rows columns"]
    bias: Float[Tensor, ""]

    @classmethod
    def sample(cls, spec: EmbeddingSpec, generator: torch.Generator, dtype: torch.dtype, amount: float) -> Self:
        """Return random shifts; see `CompleteElement.sample`."""
        return cls(
            random_shift((spec.channels, *spec.patch), generator, dtype, amount),
            random_shift((), generator, dtype, amount),
        )

    def act(self, weights: EmbeddingWeights) -> EmbeddingWeights:
        """Return the shifted weights; the positional encoding stays."""
        return replace(weights, conv_weight=weights.conv_weight + self.kernel, conv_bias=weights.conv_bias + self.bias)

    def __matmul__(self, first: Self) -> Self:
        return self.map(torch.add, first)

    def __invert__(self) -> Self:
        return self.map(torch.neg)


@dataclass(frozen=True)
class CompleteElement(ProductElement):
    """Element of the complete group of a whole network.

    ```python
    weights = zoo.weights(torch.arange(8)).to(torch.float64)
    g = nfn.CompleteElement.sample(weights.spec, torch.Generator().manual_seed(0))
    moved = g.act(weights)  # other networks, the same functions up to the LayerNorms' epsilon
    ```
    """

    blocks: tuple[CompleteBlockElement, ...]
    classifier: CompleteClassifierElement
    embedding: EmbeddingShifts | None
    """None if the network has no embedding."""

    @classmethod
    def sample(
        cls,
        spec: TransformerSpec,
        generator: torch.Generator,
        condition: float = 10.0,
        dtype: torch.dtype = torch.float64,
        amount: float = 1.0,
    ) -> Self:
        """Return a random element, with scales between 1/4 and 4, uniform in the logarithm.

        Args:
            spec: of a network with a classifier of two layers.
            generator: source of the random numbers.
            condition: number of the matrices M and N, at least 1.
            dtype: of all but permutations.
            amount: standard deviation of the shifts.

        Raises:
            SpecError: the classifier does not have two layers.
        """
        _check(spec)
        return cls(
            tuple(CompleteBlockElement.sample(block, generator, condition, dtype, amount) for block in spec.blocks),
            CompleteClassifierElement.sample(spec.classifier, generator, dtype, amount),
            None if spec.embedding is None else EmbeddingShifts.sample(spec.embedding, generator, dtype, amount),
        )

    @classmethod
    def sample_permutations(
        cls, spec: TransformerSpec, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Self:
        """Return a random element that permutes and does no more.

        It permutes heads, hidden neurons of blocks and classifier, and the coordinates after an attention and after a
        block. Within a head it permutes the columns of the values, and those of queries with keys.

        Raises:
            SpecError: the classifier does not have two layers.
        """
        nothing, hidden = cls.identity(spec, dtype), spec.classifier.sizes[1]
        return replace(
            nothing,
            blocks=tuple(CompleteBlockElement.sample_permutations(block, generator, dtype) for block in spec.blocks),
            classifier=replace(nothing.classifier, pi=torch.randperm(hidden, generator=generator)),
        )

    @classmethod
    def identity(cls, spec: TransformerSpec, dtype: torch.dtype = torch.float64) -> Self:
        """Return the element that changes nothing.

        Raises:
            SpecError: the classifier does not have two layers.
        """
        _check(spec)
        hidden, embedding = spec.classifier.sizes[1], None
        if spec.embedding is not None:
            kernel = torch.zeros(spec.embedding.channels, *spec.embedding.patch, dtype=dtype)
            embedding = EmbeddingShifts(kernel, torch.zeros((), dtype=dtype))
        return cls(
            tuple(CompleteBlockElement.identity(block, dtype) for block in spec.blocks),
            CompleteClassifierElement(
                torch.arange(hidden), torch.ones(hidden, dtype=dtype), torch.zeros(hidden, dtype=dtype)
            ),
            embedding,
        )

    def act(self, weights: TransformerWeights) -> TransformerWeights:
        """Return the transformed weights."""
        last = weights.blocks[0].b_B
        R, blocks = torch.eye(last.shape[-1], dtype=last.dtype, device=last.device), []
        for element, block in zip(self.blocks, weights.blocks, strict=True):
            blocks.append(element.act(block, R))
            R = element.R_B
        embedding = weights.embedding
        if embedding is not None and self.embedding is not None:
            embedding = self.embedding.act(embedding)
        return TransformerWeights(tuple(blocks), self.classifier.act(weights.classifier, R), embedding)

    def without_scales(self) -> Self:
        """Return the same element with c_O = c_B = 1, which meets no epsilon of a LayerNorm."""
        blocks = tuple(
            replace(block, c_O=torch.ones_like(block.c_O), c_B=torch.ones_like(block.c_B)) for block in self.blocks
        )
        return replace(self, blocks=blocks)


def _check(spec: TransformerSpec) -> None:
    if spec.classifier.layers != 2:
        raise SpecError(f"a classifier of {spec.classifier.layers} layers, expected two (complete group)")
