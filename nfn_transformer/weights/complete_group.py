"""Every symmetry that is known of the zoo's networks: the published group (`weights.group`) and what it leaves out.

The networks have LayerNorms without affine parameters and no residual connections, so their function also stays as it
is, for every network and input, under

    coordinates   a block's output coordinates are permuted, with the input rows of what reads them
    hidden scales (W^A, b^A) entry by entry times c_A > 0, the rows of W^B divided by it: ReLU(c x) = c ReLU(x)
    scales        W^O times c_O > 0, (W^B, b^B) times c_B > 0: a LayerNorm follows, which divides by the deviation
    output shifts anything constant along the output coordinate added to rows of W^O, W^B, to b^B, and across the
                  channels of the embedding's kernel and bias: a LayerNorm follows, which subtracts the mean
    input shifts  anything constant along the input coordinate added to columns of W^Q, W^K, W^V, W^A and of the
                  classifier's first layer: their input is centred by a LayerNorm, so what is added is multiplied by 0

Proof of each is one line, as given. The scales c_O and c_B alone meet the LayerNorm's epsilon, 1e-5: there the function
is kept only as far as that is small against the variance. The first block's input coordinates stay where they are, as
the positional encoding tells them apart.

An element acts on each tensor as a linear map, then a shift: W^Q_i -> P_in^-1 W^Q_tau(i) M_tau(i)^T + 1 u_Q^T, and so on.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.weights.containers import (
    BlockWeights,
    EmbeddingWeights,
    FeedForwardWeights,
    TensorFields,
    TransformerWeights,
)
from nfn_transformer.weights.group import BlockElement
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec


@dataclass(frozen=True)
class BlockShifts(TensorFields):
    """What is added to a block's tensors.

    Shapes: u_Q, u_K [h, D_k], u_V [h, D_v] and u_A [D_A], along the input coordinate; s_O [h, D_v], s_B [D_A] and
    s_b [], along the output coordinate, to W^O, W^B and b^B.
    """

    u_Q: Tensor
    u_K: Tensor
    u_V: Tensor
    u_A: Tensor
    s_O: Tensor
    s_B: Tensor
    s_b: Tensor

    def plus(self, other: Self) -> Self:
        """The sum."""
        return type(self)(*(mine + theirs for mine, theirs in zip(self.tensors(), other.tensors(), strict=True)))


@dataclass(frozen=True)
class CompleteBlockElement:
    """An element's part in one block.

    Fields: published, the element of G_U; pi_B [D], the permutation of the output coordinates; c_A [D_A], c_O [] and
    c_B [], positive; shifts.
    """

    published: BlockElement
    pi_B: Tensor
    c_A: Tensor
    c_O: Tensor
    c_B: Tensor
    shifts: BlockShifts

    @classmethod
    def sample(
        cls, spec: BlockSpec, generator: torch.Generator, condition: float, dtype: torch.dtype, amount: float
    ) -> Self:
        """A random element; see `CompleteElement.sample`."""
        shapes = (
            *((spec.heads, spec.key), (spec.heads, spec.key), (spec.heads, spec.value), (spec.hidden,)),
            *((spec.heads, spec.value), (spec.hidden,), ()),
        )
        return cls(
            published=BlockElement.sample(spec, generator, condition, dtype),
            pi_B=torch.randperm(spec.width, generator=generator),
            c_A=_scales((spec.hidden,), generator, dtype),
            c_O=_scales((), generator, dtype),
            c_B=_scales((), generator, dtype),
            shifts=BlockShifts(*(_shift(shape, generator, dtype, amount) for shape in shapes)),
        )

    def act(self, weights: BlockWeights, pi_in: Tensor) -> BlockWeights:
        """The transformed weights, where the input coordinates are permuted by pi_in [D]."""
        moved, shifts = self.published.act(weights), self.shifts
        return BlockWeights(
            W_Q=moved.W_Q[:, :, :, pi_in] + shifts.u_Q[:, None],
            W_K=moved.W_K[:, :, :, pi_in] + shifts.u_K[:, None],
            W_V=moved.W_V[:, :, :, pi_in] + shifts.u_V[:, None],
            W_O=self.c_O * moved.W_O + shifts.s_O[..., None],
            W_A=moved.W_A * self.c_A + shifts.u_A,
            b_A=moved.b_A * self.c_A,
            W_B=self.c_B * moved.W_B[..., self.pi_B] / self.c_A[:, None] + shifts.s_B[:, None],
            b_B=self.c_B * moved.b_B[..., self.pi_B] + shifts.s_b,
        )

    def compose(self, first: Self) -> Self:
        """The product that acts as `first` and then as this element."""
        return type(self)(
            published=self.published.compose(first.published),
            pi_B=first.pi_B[self.pi_B],
            c_A=first.c_A[self.published.pi_A] * self.c_A,
            c_O=first.c_O * self.c_O,
            c_B=first.c_B * self.c_B,
            shifts=self.shifts.plus(self._moved(first.shifts)),
        )

    def inverse(self) -> Self:
        """The element that undoes this one."""
        published = self.published.inverse()
        linear = replace(
            self,
            published=published,
            pi_B=torch.argsort(self.pi_B),
            c_A=1 / self.c_A[published.pi_A],
            c_O=1 / self.c_O,
            c_B=1 / self.c_B,
        )
        return replace(linear, shifts=linear._moved(self.shifts).map(torch.neg))

    def _moved(self, shifts: BlockShifts) -> BlockShifts:
        """What shifts have become after the linear part of this element."""
        g = self.published
        tau, pi_A = g.tau, g.pi_A

        def rows(vectors: Tensor, matrices: Tensor) -> Tensor:
            return (vectors[tau].unsqueeze(-2) @ matrices[tau]).squeeze(-2)

        return BlockShifts(
            u_Q=rows(shifts.u_Q, g.M.transpose(-1, -2)),
            u_K=rows(shifts.u_K, g.M_inverse),
            u_V=rows(shifts.u_V, g.N),
            u_A=shifts.u_A[pi_A] * self.c_A,
            s_O=self.c_O * rows(shifts.s_O, g.N_inverse.transpose(-1, -2)),
            s_B=self.c_B * shifts.s_B[pi_A] / self.c_A,
            s_b=self.c_B * shifts.s_b,
        )


@dataclass(frozen=True)
class CompleteClassifierElement:
    """An element's part in a classifier of two layers: pi [n], a permutation of the hidden neurons, their scales c [n]
    > 0, and u [n], added along the input coordinate of the first layer."""

    pi: Tensor
    c: Tensor
    u: Tensor

    @classmethod
    def sample(cls, spec: FeedForwardSpec, generator: torch.Generator, dtype: torch.dtype, amount: float) -> Self:
        """A random element; see `CompleteElement.sample`."""
        hidden = spec.sizes[1]
        return cls(
            torch.randperm(hidden, generator=generator),
            _scales((hidden,), generator, dtype),
            _shift((hidden,), generator, dtype, amount),
        )

    def act(self, weights: FeedForwardWeights, pi_in: Tensor) -> FeedForwardWeights:
        """The transformed weights, where the input coordinates are permuted by pi_in [D]."""
        (first, second), (bias, last) = weights.weights, weights.biases
        moved = self.c[:, None] * first[:, :, self.pi][..., pi_in] + self.u[:, None]
        return FeedForwardWeights((moved, second[..., self.pi] / self.c), (self.c * bias[..., self.pi], last))

    def compose(self, first: Self) -> Self:
        """The product that acts as `first` and then as this element."""
        return type(self)(first.pi[self.pi], first.c[self.pi] * self.c, self.u + self.c * first.u[self.pi])

    def inverse(self) -> Self:
        """The element that undoes this one."""
        pi = torch.argsort(self.pi)
        c = 1 / self.c[pi]
        return type(self)(pi, c, -c * self.u[pi])


@dataclass(frozen=True)
class EmbeddingShifts:
    """What is added to all of the embedding's output channels: kernel [channels, height, width], bias []."""

    kernel: Tensor
    bias: Tensor

    @classmethod
    def sample(cls, spec: EmbeddingSpec, generator: torch.Generator, dtype: torch.dtype, amount: float) -> Self:
        """Random shifts; see `CompleteElement.sample`."""
        return cls(_shift((spec.channels, *spec.patch), generator, dtype, amount), _shift((), generator, dtype, amount))

    def act(self, weights: EmbeddingWeights) -> EmbeddingWeights:
        """The shifted weights; the positional encoding stays."""
        return replace(weights, conv_weight=weights.conv_weight + self.kernel, conv_bias=weights.conv_bias + self.bias)


@dataclass(frozen=True)
class CompleteElement:
    """An element of the complete group of a whole network; embedding is None where the network has none."""

    blocks: tuple[CompleteBlockElement, ...]
    classifier: CompleteClassifierElement
    embedding: EmbeddingShifts | None

    @classmethod
    def sample(
        cls,
        spec: TransformerSpec,
        generator: torch.Generator,
        condition: float = 10.0,
        dtype: torch.dtype = torch.float64,
        amount: float = 1.0,
    ) -> Self:
        """A random element.

        Args:
            spec: with a classifier of two layers.
            condition: of the matrices M and N, at least 1.
            amount: standard deviation of the shifts. Scales are between 1/4 and 4, evenly in the logarithm.
        """
        assert spec.classifier.layers == 2
        return cls(
            tuple(CompleteBlockElement.sample(block, generator, condition, dtype, amount) for block in spec.blocks),
            CompleteClassifierElement.sample(spec.classifier, generator, dtype, amount),
            None if spec.embedding is None else EmbeddingShifts.sample(spec.embedding, generator, dtype, amount),
        )

    def act(self, weights: TransformerWeights) -> TransformerWeights:
        """The transformed weights."""
        pi, blocks = torch.arange(weights.blocks[0].b_B.shape[-1]), []
        for element, block in zip(self.blocks, weights.blocks, strict=True):
            blocks.append(element.act(block, pi))
            pi = element.pi_B
        embedding = weights.embedding if self.embedding is None else self.embedding.act(weights.embedding)
        return TransformerWeights(tuple(blocks), self.classifier.act(weights.classifier, pi), embedding)

    def compose(self, first: Self) -> Self:
        """The product that acts as `first` and then as this element."""
        embedding = self.embedding
        if embedding is not None:
            embedding = EmbeddingShifts(
                embedding.kernel + first.embedding.kernel, embedding.bias + first.embedding.bias
            )
        return type(self)(
            tuple(g.compose(f) for g, f in zip(self.blocks, first.blocks, strict=True)),
            self.classifier.compose(first.classifier),
            embedding,
        )

    def inverse(self) -> Self:
        """The element that undoes this one."""
        embedding = None if self.embedding is None else EmbeddingShifts(-self.embedding.kernel, -self.embedding.bias)
        return type(self)(tuple(block.inverse() for block in self.blocks), self.classifier.inverse(), embedding)

    def without_scales(self) -> Self:
        """The same element with c_O = c_B = 1: what is left meets no epsilon of a LayerNorm."""
        blocks = tuple(
            replace(block, c_O=torch.ones_like(block.c_O), c_B=torch.ones_like(block.c_B)) for block in self.blocks
        )
        return replace(self, blocks=blocks)


def _scales(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return 4 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1).to(dtype)


def _shift(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, amount: float) -> Tensor:
    return (amount * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
