"""Terms of the polynomial layers as tables: each term's input, its size, and how many entries it sums.

The layers (arXiv 2410.04209, section 5 and appendix) are sums of terms Phi * input. Terms that read
inputs of one kind are kept in one parameter, so that a layer is a few large products:

- scalars: values that the whole group leaves unchanged, S = D^2 + 3 D + 2 numbers per channel;
- columns: numbers that belong to a hidden neuron k, moved by pi_A, D + 2 per channel;
- rows: numbers that belong to a residual coordinate j, moved by pi_O, D + 1 per channel.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfn_transformer.layers.base import Fan
from nfn_transformer.weights.spec import BlockSpec


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

    def forward(self, features: Float[Tensor, "b d S"], bias: Float[Tensor, " R"]) -> Float[Tensor, "b R"]:
        """Map features to all outputs side by side [b, R], with `bias` added."""
        # On a CPU, small batches take up to twice as long if Phi is the second factor; and later sums take longer if
        # the outputs do not lie close together.
        return torch.addmm(bias.unsqueeze(1), self.Phi.flatten(1), features.flatten(1).T).T.contiguous()

    def named(self, outputs: Float[Tensor, "b R"]) -> dict[str, Tensor]:
        """Return outputs [b, R] by name: [b, *shape]."""
        pieces = outputs.split([rows.stop - rows.start for rows in self._rows.values()], dim=-1)
        return {name: piece.view(-1, *shape) for (name, shape), piece in zip(self.outputs.items(), pieces, strict=True)}
