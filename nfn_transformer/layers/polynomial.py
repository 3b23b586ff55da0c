"""The polynomial layers for one transformer block, equivariant E and invariant I (arXiv 2410.04209, section 5).

Every Phi is learned, and indexed by output and input channel. The scalars are s_QK, s_VO, s_A, s_B, s_bA, s_bB.
With QK_s = W^Q_s (W^K_s)^T and VO_s = W^V_s W^O_s:

    E(Q)_i[j,c] = Phi_Q[j,p] W^Q_i[p,c]                       and K, V likewise
    E(O)_i[c,k] = phi_O1 sum_k' W^O_i[c,k'] + phi_O2 W^O_i[c,k]
    E(A)[j,k]   = scalars + const + sum_(s,p) Phi[p] VO_s[p,j] + phi sum_q W^A[j,q]
                  + phi sum_p W^A[p,k] + sum_q Phi[q] W^B[k,q] + phi b^A[k] + phi W^A[j,k]
    E(b^A)[k]   = scalars + const + phi sum_p W^A[p,k] + sum_q Phi[q] W^B[k,q] + phi b^A[k]
    E(B)[j,k]   = scalars[k] + const[k] + Phi[k] sum_p W^A[p,j] + sum_q Phi[k,q] W^B[j,q] + Phi[k] b^A[j]
    E(b^B)[k]   = scalars[k] + const[k]

    I           = scalars + const

The published initialisation leaves some scales unsquared: those of E(Q), E(K), E(V), E(O), s_bB, the constants, and
phi b^A[k] in E(A) and E(b^A). It squares all others, Phi[k] b^A[j] in E(B) too.

The layers are sums of terms Phi * input. Terms that read inputs of one kind are kept in one parameter, so that a layer
is a few large products:

- scalars: values that the whole group leaves unchanged, S = D^2 + 3 D + 2 numbers per channel;
- columns: numbers that belong to a hidden neuron k, moved by pi_A, D + 2 per channel;
- rows: numbers that belong to a residual coordinate j, moved by pi_O, D + 1 per channel.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from nfn_transformer.features.blocks import BlockFeatures, read_block
from nfn_transformer.layers import reference_scales
from nfn_transformer.layers.base import Fan, WeightSpaceLayer
from nfn_transformer.weights.containers import BlockWeights
from nfn_transformer.weights.spec import BlockSpec

_SYMMETRY = "published group of a block"


class Term(NamedTuple):
    """One kind of input of the polynomial layers."""

    name: str
    shape: tuple[int, ...]
    """Shape of Phi's input indices."""
    summed: int
    """Input entries per channel that the term sums over."""
    unsquared: tuple[str, ...] = ()
    """Outputs in which the published initialisation leaves the scale unsquared."""


class BlockTerms(NamedTuple):
    """All terms of a block's layers by the kind of their inputs."""

    scalars: tuple[Term, ...]
    columns: tuple[Term, ...]
    rows: tuple[Term, ...]


def block_terms(spec: BlockSpec) -> BlockTerms:
    """Return the terms of the layers of one block.

    - scalars: s_QK, s_VO, s_A, s_B, s_bA, s_bB;
    - columns: sum_p W^A[p, k], sum_q Phi[q] W^B[k, q], b^A[k], which E(B) reads at its own index j;
    - rows: sum_(s,p) Phi[p] VO_s[p, j], sum_q W^A[j, q].

    The terms phi b^A[k] of E(A) and E(b^A) are initialised unsquared; Phi[k] b^A[j] of E(B) is squared.
    """
    h, D, D_A = spec.heads, spec.width, spec.hidden
    return BlockTerms(
        scalars=(
            Term("s_QK", (D, D), h * D * D),
            Term("s_VO", (D,), h * D * D),
            Term("s_A", (), D * D_A),
            Term("s_B", (D,), D_A * D),
            Term("s_bA", (), D_A),
            Term("s_bB", (D,), D, unsquared=("A", "b_A", "B", "b_B", "I")),
        ),
        columns=(
            Term("column_A", (), D),
            Term("column_B", (D,), D),
            Term("column_bA", (), 1, unsquared=("A", "b_A")),
        ),
        rows=(Term("row_VO", (D,), h * D), Term("row_A", (), D_A)),
    )


class TermTable(nn.Module):
    """A linear map from the numbers that a list of terms reads to a list of outputs, in one product.

    The parameter `Phi` is [R, d, S]: R output numbers, d channels, S numbers per channel.

    Args:
        terms: inputs, side by side.
        channels: d.
        outputs: index shape (e, ...) of each output by its name.
    """

    def __init__(self, terms: tuple[Term, ...], channels: int, outputs: dict[str, tuple[int, ...]]):
        super().__init__()
        self.terms, self.outputs = terms, outputs
        rows = {name: math.prod(shape) for name, shape in outputs.items()}
        columns = {term.name: math.prod(term.shape) for term in terms}
        self._rows, self._columns = (
            {
                name: slice(stop - sizes[name], stop)
                for name, stop in zip(sizes, itertools.accumulate(sizes.values()), strict=True)
            }
            for sizes in (rows, columns)
        )
        self.Phi = nn.Parameter(torch.empty(sum(rows.values()), channels, sum(columns.values())))

    def extra_repr(self) -> str:
        """Return inputs, outputs and their shapes, as `print(module)` shows them."""
        inputs = ", ".join(f"{term.name} {term.shape}" for term in self.terms)
        return f"{inputs} -> {', '.join(f'{name} {shape}' for name, shape in self.outputs.items())}"

    def fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """Yield the part of Phi that is one term of one output, with its fans, output by output."""
        for (output, rows), term in itertools.product(self._rows.items(), self.terms):
            fan_in, fan_out = self.Phi.shape[1] * term.summed, rows.stop - rows.start
            yield self.Phi[rows, :, self._columns[term.name]], Fan(fan_in, fan_out, output not in term.unsquared)

    def term(self, output: str, name: str) -> Tensor:
        """Return Phi of one term as a view: [*output shape, d, *term shape]."""
        shape = next(term.shape for term in self.terms if term.name == name)
        part = self.Phi[self._rows[output], :, self._columns[name]]
        return part.view(*self.outputs[output], self.Phi.shape[1], *shape)

    def terms_of(self, output: str) -> dict[str, Tensor]:
        """Return Phi of every term of one output by name; nothing if the table has no such output."""
        return {each.name: self.term(output, each.name) for each in self.terms} if output in self.outputs else {}

    def forward(self, features: Float[Tensor, "b d S"], bias: Float[Tensor, " R"]) -> Float[Tensor, "b R"]:
        """Map features to all outputs side by side [b, R], with `bias` added."""
        # On a CPU, small batches take up to twice as long if Phi is the second factor; and later sums take longer if
        # the outputs do not lie close together.
        return torch.addmm(bias.unsqueeze(1), self.Phi.flatten(1), features.flatten(1).T).T.contiguous()


@dataclass(frozen=True)
class FeedForwardPart:
    """Feed-forward part of a block, on which ReLU acts."""

    W_A: Float[Tensor, "b d D D_A"]
    b_A: Float[Tensor, "b d D_A"]
    B: Float[Tensor, "b D_A dD"]
    """W_B in the layout of the product that made it."""
    b_B: Float[Tensor, "b d D"]

    @property
    def W_B(self) -> Float[Tensor, "b d D_A D"]:
        """Return W_B [b, d, D_A, D]."""
        return self.B.unflatten(2, self.b_B.shape[1:]).transpose(1, 2)


class EquivariantBlockLayer(WeightSpaceLayer[BlockSpec]):
    """E from d to e channels: block weights to block weights, with E(gU) = g E(U) (`groups.published`).

    ```python
    block = zoo.weights(torch.arange(8)).blocks[0]  # W_Q [8, 1, h, D, D_k], ...
    layer = nfn.EquivariantBlockLayer(block.spec, in_channels=1, out_channels=5)
    features = nfn.relu(layer(block))  # W_Q [8, 5, h, D, D_k], ...
    ```

    Arguments: see `WeightSpaceLayer`.
    """

    symmetry = _SYMMETRY

    def add_terms(self) -> None:
        """See `WeightSpaceLayer`."""
        d, e, D, terms = self.in_channels, self.out_channels, self.spec.width, block_terms(self.spec)
        self.Phi_Q, self.Phi_K, self.Phi_V = (nn.Parameter(torch.empty(e, D, d, D)) for _ in range(3))
        self.phi_O1, self.phi_O2 = nn.Parameter(torch.empty(e, d)), nn.Parameter(torch.empty(e, d))
        self.phi_A = nn.Parameter(torch.empty(e, d))
        self.scalars = TermTable(terms.scalars, d, {"A": (e,), "b_A": (e,), "B": (e, D), "b_B": (e, D)})
        self.columns = TermTable(terms.columns, d, {"A": (e,), "b_A": (e,), "B": (e, D)})
        self.rows = TermTable(terms.rows, d, {"A": (e,)})
        self.constant_A, self.constant_b_A = nn.Parameter(torch.empty(e)), nn.Parameter(torch.empty(e))
        self.constant_B, self.constant_b_B = nn.Parameter(torch.empty(e, D)), nn.Parameter(torch.empty(e, D))

    def fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`; the published squares are in `block_terms`."""
        d, e, D = self.in_channels, self.out_channels, self.spec.width
        yield from ((Phi, Fan(d * D, e * D)) for Phi in (self.Phi_Q, self.Phi_K, self.Phi_V))
        yield from ((self.phi_O1, Fan(d * D, e)), (self.phi_O2, Fan(d, e)), (self.phi_A, Fan(d, e, squared=True)))
        yield from ((constant, Fan(1, e)) for constant in (self.constant_A, self.constant_b_A))
        yield from ((constant, Fan(1, e * D)) for constant in (self.constant_B, self.constant_b_B))
        for table in (self.scalars, self.columns, self.rows):
            yield from table.fans()

    def reference_fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`."""
        return reference_scales.equivariant_fans(self)

    def forward(self, weights: BlockWeights) -> BlockWeights:
        """Map block weights of d channels to block weights of e channels.

        Raises:
            SpecError: the weights have other sizes or channels than the layer.
        """
        self.check(weights)
        part = self.feed_forward(read_block(weights))
        return BlockWeights(
            W_Q=_mix_inputs(self.Phi_Q, weights.W_Q),
            W_K=_mix_inputs(self.Phi_K, weights.W_K),
            W_V=_mix_inputs(self.Phi_V, weights.W_V),
            W_O=_mix_channels(self.phi_O1, weights.W_O.sum(-1, keepdim=True)) + _mix_channels(self.phi_O2, weights.W_O),
            W_A=part.W_A,
            b_A=part.b_A,
            W_B=part.W_B,
            b_B=part.b_B,
        )

    def feed_forward(self, features: BlockFeatures, rectified: bool = False) -> FeedForwardPart:
        """Return E(A), E(b^A), E(B) and E(b^B) of e channels from features of d channels; `rectified`, with a ReLU."""
        scalars = self.scalars(features.scalars, self.constants)
        by_coordinate = features.rows.transpose(1, 2).flatten(2)  # [b, D, d (D + 1)]
        rows = _for_each(self.rows.Phi.flatten(1), by_coordinate.transpose(1, 2))
        return self.assemble(scalars, rows, features.columns, features.W_A, rectified)

    @property
    def constants(self) -> Float[Tensor, " R"]:
        """Return the four constant terms in the order of the outputs of the table `scalars`."""
        constants = (self.constant_A, self.constant_b_A, self.constant_B, self.constant_b_B)
        return torch.cat([constant.flatten() for constant in constants])

    def assemble(
        self,
        scalars: Float[Tensor, "b R"],
        rows: Float[Tensor, "b e D"],
        columns: Float[Tensor, "b d D_A D+2"],
        W_A: Float[Tensor, "b d D D_A"],
        rectified: bool,
    ) -> FeedForwardPart:
        """Return the result of `feed_forward` from the sums of its terms.

        Args:
            scalars: outputs of the table `scalars`, with the constants added.
            rows: outputs of the table `rows`.
            columns: column features of the input.
            W_A: weights of the input.
            rectified: apply a ReLU.
        """
        # The outputs A and b_A read columns at their own index k, B at its index j.
        e, D = self.out_channels, self.spec.width
        Phi_A, Phi_B = self.columns.Phi.flatten(1).split([2 * e, e * D])
        scalars_A, scalars_b_A, scalars_B, b_B = scalars.split([e, e, e * D, e * D], dim=1)
        by_neuron = columns.transpose(1, 2).flatten(2)  # [b, D_A, d (D + 2)]
        columns_A, columns_b_A = _for_each(Phi_A, by_neuron.transpose(1, 2)).chunk(2, dim=1)  # [b, e, D_A]
        rows = (rows + scalars_A.unsqueeze(-1)).to(columns_A.dtype)  # autocast makes some sums float32
        # A and B are large and changed in place; neither is a view, whose gradient autograd would copy.
        A = rows.unsqueeze(-1) + columns_A.unsqueeze(2)
        A = A.add_(_mix_channels(self.phi_A, W_A))
        b_A, b_B = columns_b_A + scalars_b_A.unsqueeze(-1), b_B.view(-1, e, D)
        B = linear(by_neuron, Phi_B).add_(scalars_B.unsqueeze(1))
        if rectified:
            A, b_A, B, b_B = A.relu_(), b_A.relu_(), B.relu_(), b_B.relu()
        return FeedForwardPart(A, b_A, B, b_B)


def _for_each(Phi: Float[Tensor, "r s"], numbers: Float[Tensor, "b s n"]) -> Float[Tensor, "b r n"]:
    """Return Phi times numbers, contiguous as [b, r, n], which `@` does not promise."""
    return Phi.expand(len(numbers), -1, -1).bmm(numbers)


def _mix_inputs(Phi: Float[Tensor, "e D d D"], per_head: Float[Tensor, "b d h D c"]) -> Float[Tensor, "b e h D c"]:
    """Return Phi times the input rows and channels of a projection."""
    heads = per_head.shape[2]
    stacked = per_head.transpose(2, 3).flatten(3).flatten(1, 2)  # [b, d D, h c]
    mixed = Phi.flatten(2).flatten(0, 1) @ stacked  # [b, e D, h c]
    return mixed.unflatten(1, Phi.shape[:2]).unflatten(3, (heads, -1)).transpose(2, 3)


def _mix_channels(phi: Float[Tensor, "e d"], tensor: Float[Tensor, "b d *n"]) -> Float[Tensor, "b e *n"]:
    """Return phi times the channels of a tensor."""
    return _for_each(phi, tensor.flatten(2)).unflatten(2, tensor.shape[2:])


class InvariantBlockLayer(WeightSpaceLayer[BlockSpec]):
    """I from d channels to e numbers, with I(gU) = I(U) for every element g of the block's group (`groups.published`).

    ```python
    block = zoo.weights(torch.arange(8)).blocks[0]
    numbers = nfn.InvariantBlockLayer(block.spec, in_channels=1, out_channels=3)(block)  # [8, 3]
    ```

    Arguments: see `WeightSpaceLayer`.
    """

    symmetry = _SYMMETRY

    def add_terms(self) -> None:
        """See `WeightSpaceLayer`."""
        self.scalars = TermTable(block_terms(self.spec).scalars, self.in_channels, {"I": (self.out_channels,)})
        self.constant = nn.Parameter(torch.empty(self.out_channels))

    def fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`."""
        yield from self.scalars.fans()
        yield self.constant, Fan(1, self.out_channels)

    def reference_fans(self) -> Iterator[tuple[Tensor, Fan]]:
        """See `WeightSpaceLayer`."""
        return reference_scales.invariant_fans(self)

    def forward(self, weights: BlockWeights) -> Float[Tensor, "b e"]:
        """Map block weights of d channels to invariants [b, e].

        Raises:
            SpecError: the weights have other sizes or channels than the layer.
        """
        self.check(weights)
        return self.scalars(read_block(weights).scalars, self.constant)
