"""The polynomial layers, slowly and term by term, straight from the formulas of the design.

Index letters: b network, d input channel, e output channel, s head, p q j k entries, c D_k or D_v.
"""

import torch
from torch import Tensor

from nfn_transformer.layers.equivariant import EquivariantBlockLayer
from nfn_transformer.layers.invariant import InvariantBlockLayer
from nfn_transformer.layers.terms import TermTable
from nfn_transformer.weights.containers import BlockWeights

einsum = torch.einsum


def scalars(table: TermTable, output: str, U: BlockWeights) -> Tensor:
    """The six scalars for one output, summed: [b, e] or, where every Phi is indexed by k too, [b, e, k]."""
    k = "k" if len(table.outputs[output]) == 2 else ""
    QK = einsum("bdspc,bdsqc->bdspq", U.W_Q, U.W_K)
    VO = einsum("bdspc,bdscq->bdspq", U.W_V, U.W_O)
    phi = {name: table.term(output, name) for name in ("s_QK", "s_VO", "s_A", "s_B", "s_bA", "s_bB")}
    return (
        einsum(f"e{k}dpq,bdspq->be{k}", phi["s_QK"], QK)
        + einsum(f"e{k}dp,bdspq->be{k}", phi["s_VO"], VO)
        + einsum(f"e{k}d,bdpq->be{k}", phi["s_A"], U.W_A)
        + einsum(f"e{k}dq,bdpq->be{k}", phi["s_B"], U.W_B)
        + einsum(f"e{k}d,bdq->be{k}", phi["s_bA"], U.b_A)
        + einsum(f"e{k}dq,bdq->be{k}", phi["s_bB"], U.b_B)
    )


def columns(table: TermTable, output: str, U: BlockWeights) -> Tensor:
    """The three terms of hidden neuron k for E(A) and E(b^A): [b, e, k]."""
    return (
        einsum("ed,bdpk->bek", table.term(output, "column_A"), U.W_A)
        + einsum("edq,bdkq->bek", table.term(output, "column_B"), U.W_B)
        + einsum("ed,bdk->bek", table.term(output, "column_bA"), U.b_A)
    )


def invariant(layer: InvariantBlockLayer, U: BlockWeights) -> Tensor:
    return scalars(layer.scalars, "I", U) + layer.constant


def equivariant(layer: EquivariantBlockLayer, U: BlockWeights) -> BlockWeights:
    VO = einsum("bdspc,bdscq->bdspq", U.W_V, U.W_O)
    s, c, r = layer.scalars, layer.columns, layer.rows
    E_A = (
        (scalars(s, "A", U) + layer.constant_A)[:, :, None, None]
        + einsum("edp,bdspj->bej", r.term("A", "row_VO"), VO)[:, :, :, None]
        + einsum("ed,bdjq->bej", r.term("A", "row_A"), U.W_A)[:, :, :, None]
        + columns(c, "A", U)[:, :, None, :]
        + einsum("ed,bdjk->bejk", layer.phi_A, U.W_A)
    )
    E_b_A = (scalars(s, "b_A", U) + layer.constant_b_A)[:, :, None] + columns(c, "b_A", U)
    E_B = (
        (scalars(s, "B", U) + layer.constant_B)[:, :, None, :]
        + einsum("ekd,bdpj->bejk", c.term("B", "column_A"), U.W_A)
        + einsum("ekdq,bdjq->bejk", c.term("B", "column_B"), U.W_B)
        + einsum("ekd,bdj->bejk", c.term("B", "column_bA"), U.b_A)
    )
    return BlockWeights(
        W_Q=einsum("ejdp,bdspc->besjc", layer.Phi_Q, U.W_Q),
        W_K=einsum("ejdp,bdspc->besjc", layer.Phi_K, U.W_K),
        W_V=einsum("ejdp,bdspc->besjc", layer.Phi_V, U.W_V),
        W_O=einsum("ed,bdscq->besc", layer.phi_O1, U.W_O)[..., None] + einsum("ed,bdsck->besck", layer.phi_O2, U.W_O),
        W_A=E_A,
        b_A=E_b_A,
        W_B=E_B,
        b_B=scalars(s, "b_B", U) + layer.constant_b_B,
    )
