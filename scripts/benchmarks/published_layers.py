"""The polynomial layers the published way: one einsum and one parameter per term, every head and channel expanded.

Source: arXiv 2410.04209, section 5 and appendix. The tables below are its formulas, term by term. Index letters:
b network, d input channel, e output channel, s head, p q j k entries, c D_k or D_v. In E(A), E(b^A) and E(B)
an entry may run over D or D_A; a learned Phi is only ever indexed by e, d and entries that run over D.

What each layer reads, beside the block's own weights, are the matrices of single heads, both [b, d, h, D, D]:

    QK_s = W^Q_s (W^K_s)^T        VO_s = W^V_s W^O_s

These layers compute the same functions as `nfn_transformer.layers`, have the same number of parameters, and are
what the benchmarks compare its speed with; the tests hold the package's layers against them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, einsum, nn

from nfn_transformer import BlockWeights, EquivariantBlockLayer, InvariantBlockLayer
from nfn_transformer.layers.polynomial import TermTable

Layer = EquivariantBlockLayer | InvariantBlockLayer


class Term(NamedTuple):
    """Term of a formula: name of Phi, einsum of Phi and the term's input, name of the input."""

    name: str
    formula: str
    reads: str | None = None


class Output(NamedTuple):
    """Output of a layer: its indices and its terms, each repeated along the indices that it lacks."""

    indices: str
    terms: tuple[Term, ...]


def _scalars(output: str, k: str = "") -> tuple[Term, ...]:
    """Return the six scalars and the constant of one output; with `k`, every Phi is indexed by the output's k, too."""
    return (
        Term(f"{output}/s_QK", f"e{k}dpq,bdspq->be{k}", "QK"),
        Term(f"{output}/s_VO", f"e{k}dp,bdspq->be{k}", "VO"),
        Term(f"{output}/s_A", f"e{k}d,bdpq->be{k}", "W_A"),
        Term(f"{output}/s_B", f"e{k}dq,bdpq->be{k}", "W_B"),
        Term(f"{output}/s_bA", f"e{k}d,bdq->be{k}", "b_A"),
        Term(f"{output}/s_bB", f"e{k}dq,bdq->be{k}", "b_B"),
        Term(f"{output}/constant", f"e{k}->e{k}"),
    )


def _columns(output: str) -> tuple[Term, ...]:
    """Return the three terms of hidden neuron k in E(A) and E(b^A)."""
    return (
        Term(f"{output}/column_A", "ed,bdpk->bek", "W_A"),
        Term(f"{output}/column_B", "edq,bdkq->bek", "W_B"),
        Term(f"{output}/column_bA", "ed,bdk->bek", "b_A"),
    )


EQUIVARIANT = {
    "W_Q": Output("besjc", (Term("Q/Phi_Q", "ejdp,bdspc->besjc", "W_Q"),)),
    "W_K": Output("besjc", (Term("K/Phi_K", "ejdp,bdspc->besjc", "W_K"),)),
    "W_V": Output("besjc", (Term("V/Phi_V", "ejdp,bdspc->besjc", "W_V"),)),
    "W_O": Output("besck", (Term("O/phi_O1", "ed,bdscq->besc", "W_O"), Term("O/phi_O2", "ed,bdsck->besck", "W_O"))),
    "W_A": Output(
        "bejk",
        (
            *_scalars("A"),
            Term("A/row_VO", "edp,bdspj->bej", "VO"),
            Term("A/row_A", "ed,bdjq->bej", "W_A"),
            *_columns("A"),
            Term("A/phi_A", "ed,bdjk->bejk", "W_A"),
        ),
    ),
    "b_A": Output("bek", (*_scalars("b_A"), *_columns("b_A"))),
    "W_B": Output(
        "bejk",
        (
            *_scalars("B", "k"),
            Term("B/column_A", "ekd,bdpj->bejk", "W_A"),
            Term("B/column_B", "ekdq,bdjq->bejk", "W_B"),
            Term("B/column_bA", "ekd,bdj->bejk", "b_A"),
        ),
    ),
    "b_B": Output("bek", _scalars("b_B", "k")),
}
INVARIANT = {"I": Output("be", _scalars("I"))}


def term_by_term(outputs: Mapping[str, Output], Phi: Mapping[str, Tensor], weights: BlockWeights) -> dict[str, Tensor]:
    """Return every output of a table of formulas, from block weights of d channels.

    Args:
        outputs: EQUIVARIANT or INVARIANT.
        Phi: a parameter for the name of each term, of the shape that the term's einsum gives it.
        weights: the shapes are those of BlockWeights; QK and VO of all heads are made once for all terms.
    """
    read = {
        **vars(weights),
        "QK": einsum("bdspc,bdsqc->bdspq", weights.W_Q, weights.W_K),
        "VO": einsum("bdspc,bdscq->bdspq", weights.W_V, weights.W_O),
    }
    return {name: _sum_of_terms(output, Phi, read) for name, output in outputs.items()}


def _sum_of_terms(output: Output, Phi: Mapping[str, Tensor], read: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the terms: those of equal indices first, while small, then repeated to the output's indices."""
    sums: dict[str, Tensor] = {}
    for term in output.terms:
        indices = term.formula.split("->")[1]
        operands = [Phi[term.name]] if term.reads is None else [Phi[term.name], read[term.reads]]
        value = einsum(term.formula, *operands)
        sums[indices] = sums[indices] + value if indices in sums else value
    first, *others = (_with_indices(value, indices, output.indices) for indices, value in sums.items())
    for other in others:
        first = first + other
    return first


def _with_indices(value: Tensor, indices: str, wanted: str) -> Tensor:
    """Return the value with a dimension of size 1 for each index of `wanted` that it lacks."""
    return value[tuple(slice(None) if index in indices else None for index in wanted)]


def terms_of(ours: Layer) -> dict[str, Tensor]:
    """Return Phi of each term by name, as a view of the parameters of one of the package's layers."""
    if isinstance(ours, InvariantBlockLayer):
        return {**_terms_of_table(ours.scalars), "I/constant": ours.constant}
    return {
        **{f"{name[-1]}/{name}": getattr(ours, name) for name in ("Phi_Q", "Phi_K", "Phi_V")},
        **{"O/phi_O1": ours.phi_O1, "O/phi_O2": ours.phi_O2, "A/phi_A": ours.phi_A},
        **{f"{output}/constant": getattr(ours, f"constant_{output}") for output in ("A", "b_A", "B", "b_B")},
        **{
            name: Phi
            for table in (ours.scalars, ours.columns, ours.rows)
            for name, Phi in _terms_of_table(table).items()
        },
    }


def _terms_of_table(table: TermTable) -> dict[str, Tensor]:
    return {f"{output}/{term.name}": table.term(output, term.name) for output in table.outputs for term in table.terms}


class TermByTermLayer(nn.Module):
    """Base of both layers: a parameter for each term, copied from one of the package's layers.

    Args:
        ours: the layer whose sizes, data type, device and parameters this one starts with.
    """

    def __init__(self, ours: Layer):
        super().__init__()
        empty = {
            name: torch.empty(Phi.shape, dtype=Phi.dtype, device=Phi.device) for name, Phi in terms_of(ours).items()
        }
        self.Phi = nn.ParameterDict(empty)
        self.load_terms(ours)

    @torch.no_grad()
    def load_terms(self, ours: Layer) -> None:
        """Copy every number of the package's layer into the parameter of its term."""
        for name, Phi in terms_of(ours).items():
            self.Phi[name].copy_(Phi)

    @torch.no_grad()
    def store_terms(self, ours: Layer) -> None:
        """Copy every term's parameter back to its place in the package's layer."""
        for name, Phi in terms_of(ours).items():
            Phi.copy_(self.Phi[name])


class TermByTermEquivariant(TermByTermLayer):
    """Equivariant layer E (section 5): block weights of d channels to block weights of e channels."""

    def forward(self, weights: BlockWeights) -> BlockWeights:
        """Map block weights [b, d, ...] to block weights [b, e, ...]."""
        return BlockWeights(**term_by_term(EQUIVARIANT, self.Phi, weights))


class TermByTermInvariant(TermByTermLayer):
    """Invariant layer I (section 5): block weights of d channels to e numbers."""

    def forward(self, weights: BlockWeights) -> Tensor:
        """Map block weights [b, d, ...] to invariants [b, e]."""
        return term_by_term(INVARIANT, self.Phi, weights)["I"]
