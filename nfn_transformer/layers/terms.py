"""Terms of the polynomial layers as tables: what each reads, its size, and how many entries it sums.

The layers (arXiv 2410.04209, section 5 and appendix) are sums of terms Phi * input. Terms that read
inputs of one kind are kept in one parameter, so that a layer is a few large products:

- scalars: values that the whole group leaves unchanged, S = D^2 + 3 D + 2 numbers per channel;
- columns: numbers that belong to a hidden neuron k, moved by pi_A, D + 2 per channel;
- rows: numbers that belong to a residual coordinate j, moved by pi_O, D + 1 per channel.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nfn_transformer.errors import SpecError
from nfn_transformer.layers.initialization import Fan, initialize_term
from nfn_transformer.weights.containers import BlockWeights
from nfn_transformer.weights.spec import BlockSpec


class Term(NamedTuple):
    """A term's name, the shape of Phi's input indices, the input entries that it sums over per
    channel, and the outputs in which the published initialisation leaves its scale unsquared."""

    name: str
    shape: tuple[int, ...]
    summed: int
    unsquared: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Numbers per channel that Phi's input indices run over."""
        return torch.Size(self.shape).numel()


def scalar_terms(spec: BlockSpec) -> tuple[Term, ...]:
    """s_QK, s_VO, s_A, s_B, s_bA, s_bB."""
    h, D, D_A = spec.heads, spec.width, spec.hidden
    return (
        Term("s_QK", (D, D), h * D * D),
        Term("s_VO", (D,), h * D * D),
        Term("s_A", (), D * D_A),
        Term("s_B", (D,), D_A * D),
        Term("s_bA", (), D_A),
        Term("s_bB", (D,), D, unsquared=("A", "b_A", "B", "b_B", "I")),
    )


def column_terms(spec: BlockSpec) -> tuple[Term, ...]:
    """sum_p W^A[p, k], sum_q Phi[q] W^B[k, q], b^A[k]; E(B) reads the same at its own index j.

    Of the last, the terms phi b^A[k] of E(A) and E(b^A) are initialised unsquared, and Phi[k] b^A[j]
    of E(B) squared like its neighbours.
    """
    D = spec.width
    return (
        Term("column_A", (), D),
        Term("column_B", (D,), D),
        Term("column_bA", (), 1, unsquared=("A", "b_A")),
    )


def row_terms(spec: BlockSpec) -> tuple[Term, ...]:
    """sum_(s,p) Phi[p] VO_s[p, j], sum_q W^A[j, q]."""
    return (Term("row_VO", (spec.width,), spec.heads * spec.width), Term("row_A", (), spec.hidden))


class TermTable(nn.Module):
    """A linear map from the numbers that a list of terms reads to a list of outputs, one product.

    The parameter `Phi` is [R, d, S]: R output numbers, d channels, S numbers per channel. Outputs
    are named, each with its own index shape (e, ...); `term(output, name)` is the Phi of one term.
    """

    def __init__(self, terms: tuple[Term, ...], channels: int, outputs: dict[str, tuple[int, ...]]):
        super().__init__()
        self.terms = terms
        self.outputs = outputs
        self._rows = {name: torch.Size(shape).numel() for name, shape in outputs.items()}
        columns = sum(term.size for term in terms)
        self.Phi = nn.Parameter(torch.empty(sum(self._rows.values()), channels, columns))

    def reset_parameters(self, init_type: str, generator: torch.Generator | None = None) -> None:
        """Initialise each term by its own fans (see `layers.initialization`)."""
        for output, rows in self._rows.items():
            for term in self.terms:
                fan = Fan(self.Phi.shape[1] * term.summed, rows, squared=output not in term.unsquared)
                initialize_term(self._block(output, term.name), fan, init_type, generator)

    def term(self, output: str, name: str) -> Tensor:
        """Phi of one term as a view: [*output shape, d, *term shape]."""
        shape = next(term.shape for term in self.terms if term.name == name)
        return self._block(output, name).view(*self.outputs[output], self.Phi.shape[1], *shape)

    def _block(self, output: str, name: str) -> Tensor:
        names = list(self._rows)
        start = sum(self._rows[other] for other in names[: names.index(output)])
        terms = [term.name for term in self.terms]
        column = sum(term.size for term in self.terms[: terms.index(name)])
        size = self.terms[terms.index(name)].size
        return self.Phi[start : start + self._rows[output], :, column : column + size]

    def forward(self, features: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Map features [b, d, S] to outputs [b, *shape] by one product, with `bias` [R] added."""
        return self.named(self.mixed(features, bias))

    def mixed(self, features: Tensor, bias: Tensor) -> Tensor:
        """The same outputs side by side, [b, R]."""
        # On a CPU, small batches take up to twice as long where Phi is the second factor; and what outputs are added to
        # takes longer where they do not lie close together.
        return torch.addmm(bias.unsqueeze(1), self.Phi.flatten(1), features.flatten(1).T).T.contiguous()

    def split(self, *groups: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Phi [numbers, d S] of each group of outputs; one after another, groups name all outputs in their order."""
        return self.Phi.flatten(1).split([sum(self._rows[name] for name in group) for group in groups])

    def named(self, mixed: Tensor) -> dict[str, Tensor]:
        """Output numbers [b, R] by name: [b, *shape]."""
        pieces = mixed.split(list(self._rows.values()), dim=-1)
        return {name: piece.view(-1, *shape) for (name, shape), piece in zip(self.outputs.items(), pieces, strict=True)}

    @property
    def rows(self) -> int:
        """The number R of output numbers."""
        return self.Phi.shape[0]


def check_block(weights: BlockWeights, spec: BlockSpec, channels: int) -> None:
    """Raise SpecError unless the weights have the sizes of `spec` and this many channels."""
    weights.check(spec)
    if weights.channels != channels:
        raise SpecError(f"block weights have {weights.channels} channels, expected {channels}")
