"""Inputs of the polynomial layers: numbers of a block that depend on its weights alone, never on a parameter.

They are made once for each network, before any training; `layers.polynomial` lists the terms that read them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.weights.containers import BlockWeights, TensorTree


@dataclass(frozen=True)
class BlockFeatures(TensorTree):
    """Numbers of one block that determine the outputs of all layers, in the order of `polynomial.block_terms`."""

    scalars: Float[Tensor, "*n b d S"]
    """QK, VO 1, and the sums of the other tensors: S = D^2 + 3 D + 2."""
    columns: Float[Tensor, "*n b d D_A C"]
    """For each hidden neuron the sum of W^A, the row of W^B, and b^A: C = D + 2."""
    rows: Float[Tensor, "*n b d D D+1"]
    """VO transposed, and the row sums of W^A."""
    W_A: Float[Tensor, "*n b d D D_A"]
    """The weights W^A."""

    @property
    def attention(self) -> tuple[Float[Tensor, "b d D D"], Float[Tensor, "b d D D"], Float[Tensor, "b d D"]]:
        """Return QK = sum_s W^Q_s (W^K_s)^T, VO = sum_s W^V_s W^O_s and VO times a vector of ones, by channel."""
        D = self.rows.shape[2]
        QK = self.scalars[..., : D**2].view(*self.scalars.shape[:2], D, D)
        return QK, self.rows[..., :-1].transpose(-1, -2), self.scalars[..., D**2 : D**2 + D]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Return QK, VO, W^A, b^A, W^B and b^B, [b, d, ...] each, of which all features are sums."""
        W_B, b_A, b_B = self.columns[..., 1:-1], self.columns[..., -1], self.scalars[..., -self.rows.shape[2] :]
        QK, VO, _ = self.attention
        return QK, VO, self.W_A, b_A, W_B, b_B

    def divided(self, sizes: Float[Tensor, "6"]) -> "BlockFeatures":
        """Return the features of the block with these `parts`, each divided by one of `sizes` [6]."""
        QK, VO, W_A, b_A, W_B, b_B = sizes.unbind()
        D = self.rows.shape[2]

        def repeated(*runs: tuple[Tensor, int]) -> Tensor:
            return torch.cat([size.expand(count) for size, count in runs])

        return BlockFeatures(
            scalars=self.scalars / repeated((QK, D * D), (VO, D), (W_A, 1), (W_B, D), (b_A, 1), (b_B, D)),
            columns=self.columns / repeated((W_A, 1), (W_B, D), (b_A, 1)),
            rows=self.rows / repeated((VO, D), (W_A, 1)),
            W_A=self.W_A / W_A,
        )


def read_block(weights: BlockWeights) -> BlockFeatures:
    """Return the features of a block's weights; the sums over heads are one product, without those of single heads."""
    Q, K, V = (heads_side_by_side(per_head) for per_head in (weights.W_Q, weights.W_K, weights.W_V))
    O = weights.W_O.flatten(2, 3)  # [b, d, h D_v, D]  # noqa: E741 - the symbol of the paper
    QK, VO = Q @ K.transpose(-1, -2), V @ O  # [b, d, D, D]
    W_A, b_A, W_B, b_B = weights.W_A, weights.b_A, weights.W_B, weights.b_B
    sums = scalar_sums(VO.sum(-1), W_A.sum((-2, -1)), W_B.sum(-2), b_A.sum(-1), b_B)
    return BlockFeatures(
        scalars=torch.cat([QK.flatten(2), sums], dim=-1),
        columns=column_features(W_A, b_A, W_B),
        rows=torch.cat([VO.transpose(-1, -2), W_A.sum(-1, keepdim=True)], dim=-1),
        W_A=W_A,
    )


def heads_side_by_side(per_head: Float[Tensor, "b d h D c"]) -> Float[Tensor, "b d D h*c"]:
    """Return W^Q, W^K or W^V as one matrix of all heads: [b, d, D, h c]."""
    return per_head.transpose(2, 3).flatten(3)


def scalar_sums(
    VO_1: Float[Tensor, "b d D"],
    sum_A: Float[Tensor, "b d"],
    sum_B: Float[Tensor, "b d D"],
    sum_bA: Float[Tensor, "b d"],
    b_B: Float[Tensor, "b d D"],
) -> Float[Tensor, "b d 3*D+2"]:
    """Return the inputs of the scalar terms after s_QK: [b, d, 3 D + 2].

    Args:
        VO_1: VO times the vector of ones.
        sum_A: sum of W_A over both its indices.
        sum_B: sum of W_B over the hidden neurons.
        sum_bA: sum of b_A.
        b_B: the output bias.
    """
    return torch.cat([VO_1, sum_A.unsqueeze(-1), sum_B, sum_bA.unsqueeze(-1), b_B], dim=-1)


def column_features(
    W_A: Float[Tensor, "b d D D_A"], b_A: Float[Tensor, "b d D_A"], W_B: Float[Tensor, "b d D_A D"]
) -> Float[Tensor, "b d D_A D+2"]:
    """Return the inputs of the column terms for each hidden neuron: [b, d, D_A, D + 2]."""
    return torch.cat([W_A.sum(-2).unsqueeze(-1), W_B, b_A.unsqueeze(-1)], dim=-1)
