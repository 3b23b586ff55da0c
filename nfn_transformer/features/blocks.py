"""What the polynomial layers read of a block: numbers that depend on its weights alone, never on a parameter.

They are made once for each network, before any training; see `layers.terms` for who reads what.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.weights.containers import BlockWeights, TensorTree


@dataclass(frozen=True)
class BlockFeatures(TensorTree):
    """Numbers of one block, which carry all that the layers can see of it.

    Shapes: scalars [b, d, D^2 + 3 D + 2], QK and then VO 1 and the sums of the other tensors, in the order of
    `terms.block_terms`; columns [b, d, D_A, D + 2], as there; rows [b, d, D, D + 1], VO
    transposed and the row sums of W^A, as there; W_A [b, d, D, D_A].
    """

    scalars: Tensor
    columns: Tensor
    rows: Tensor
    W_A: Tensor

    @property
    def width(self) -> int:
        """The residual width D."""
        return self.rows.shape[2]

    @property
    def QK(self) -> Tensor:
        """sum_s W^Q_s (W^K_s)^T of each channel: [b, d, D, D]."""
        return self.scalars[..., : self.width**2].view(*self.scalars.shape[:2], self.width, self.width)

    @property
    def VO(self) -> Tensor:
        """sum_s W^V_s W^O_s of each channel: [b, d, D, D]."""
        return self.rows[..., : self.width].transpose(-1, -2)

    @property
    def VO_1(self) -> Tensor:
        """VO times the vector of ones: [b, d, D]."""
        return self.scalars[..., self.width**2 : self.width**2 + self.width]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """QK, VO, W^A, b^A, W^B and b^B, [b, d, ...] each, of which all these numbers are sums."""
        W_B, b_A = self.columns[..., 1:-1], self.columns[..., -1]
        return self.QK, self.VO, self.W_A, b_A, W_B, self.scalars[..., -self.width :]

    def divided(self, sizes: Tensor) -> "BlockFeatures":
        """The features of the block whose `parts` are these, each divided by one of `sizes` [6]."""
        QK, VO, W_A, b_A, W_B, b_B = sizes.unbind()
        D = self.width

        def by(*runs: tuple[Tensor, int]) -> Tensor:
            return torch.cat([size.expand(count) for size, count in runs])

        return BlockFeatures(
            scalars=self.scalars / by((QK, D * D), (VO, D), (W_A, 1), (W_B, D), (b_A, 1), (b_B, D)),
            columns=self.columns / by((W_A, 1), (W_B, D), (b_A, 1)),
            rows=self.rows / by((VO, D), (W_A, 1)),
            W_A=self.W_A / W_A,
        )


def read_block(weights: BlockWeights) -> BlockFeatures:
    """The features of a block's weights; sums over heads are one product, those of single heads are never made."""
    Q, K, V = (heads_side_by_side(per_head) for per_head in (weights.W_Q, weights.W_K, weights.W_V))
    O = weights.W_O.flatten(2, 3)  # [b, d, h D_v, D]  # noqa: E741 - the symbol of the paper
    return block_features(Q @ K.transpose(-1, -2), V @ O, weights.W_A, weights.b_A, weights.W_B, weights.b_B)


def heads_side_by_side(per_head: Tensor) -> Tensor:
    """W^Q, W^K or W^V [b, d, h, D, c] as one matrix of all heads: [b, d, D, h c]."""
    return per_head.transpose(2, 3).flatten(3)


def block_features(QK: Tensor, VO: Tensor, W_A: Tensor, b_A: Tensor, W_B: Tensor, b_B: Tensor) -> BlockFeatures:
    """The features from sums over heads QK and VO [b, d, D, D] and the feed-forward tensors of `BlockWeights`."""
    sums = scalar_sums(VO.sum(-1), W_A.sum((-2, -1)), W_B.sum(-2), b_A.sum(-1), b_B)
    return BlockFeatures(
        scalars=torch.cat([QK.flatten(2), sums], dim=-1),
        columns=column_features(W_A, b_A, W_B),
        rows=torch.cat([VO.transpose(-1, -2), W_A.sum(-1, keepdim=True)], dim=-1),
        W_A=W_A,
    )


def scalar_sums(VO_1: Tensor, sum_A: Tensor, sum_B: Tensor, sum_bA: Tensor, b_B: Tensor) -> Tensor:
    """What the scalar terms after s_QK read: [b, d, 3 D + 2].

    VO_1 [b, d, D] is VO times the vector of ones; sum_A, sum_B, sum_bA [b, d], [b, d, D], [b, d] are sums of W_A over
    both its indices, of W_B over the hidden neurons and of b_A.
    """
    return torch.cat([VO_1, sum_A.unsqueeze(-1), sum_B, sum_bA.unsqueeze(-1), b_B], dim=-1)


def column_features(W_A: Tensor, b_A: Tensor, W_B: Tensor) -> Tensor:
    """Return the inputs of the column terms for each hidden neuron: [b, d, D_A, D + 2]."""
    return torch.cat([W_A.sum(-2).unsqueeze(-1), W_B, b_A.unsqueeze(-1)], dim=-1)
