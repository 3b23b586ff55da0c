"""Equivariant layers, a ReLU after each, and the invariant layer at their end, composed instead of expanded.

E(Q), E(K), E(V), E(O) (arXiv 2410.04209, section 5) are linear, with coefficients that no data touch, and no ReLU acts
on them. So after any stack of layers

    W^Q_i^(l) = Psi_Q W^Q_i      W^O_i^(l)[c,k] = psi_O1 sum_k' W^O_i[c,k'] + psi_O2 W^O_i[c,k]

with K and V like Q, each Psi the product of the layers' Phi. A layer reads of the attention

    QK^(l) = Psi_Q QK Psi_K^T    VO^(l) = Psi_V VO (psi_O2 I + psi_O1 1 1^T)

and its terms need only the input's two D x D matrices QK and VO, of every pair of input channels.

Index letters: b network, a input channel of the stack, d channel of the layer that reads, r output number of its terms.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from nfn_transformer.features.blocks import (
    BlockFeatures,
    column_features,
    heads_side_by_side,
    read_block,
    scalar_sums,
)
from nfn_transformer.layers.polynomial import EquivariantBlockLayer, FeedForwardPart, InvariantBlockLayer, TermTable
from nfn_transformer.weights.containers import BlockWeights


def stack_invariants(
    layers: Iterable[EquivariantBlockLayer], invariant: InvariantBlockLayer, block: BlockWeights | BlockFeatures
) -> Float[Tensor, "b e"]:
    """Return invariants [b, e]: those of the layers one after another, each followed by `relu`, then `invariant`.

    ```python
    block = zoo.weights(torch.arange(8)).blocks[0]
    layers = [nfn.EquivariantBlockLayer(block.spec, d, e) for d, e in ((1, 5), (5, 5))]
    numbers = nfn.stack_invariants(layers, nfn.InvariantBlockLayer(block.spec, 5, 3), block)  # [8, 3]
    ```

    Args:
        layers: at least one, each of as many input channels as the one before has output channels.
        invariant: of as many channels as the last layer has output channels.
        block: weights of as many channels a as the first layer reads; or features of weights of one channel.

    Raises:
        SpecError: the weights have other sizes or channels than the first layer.
    """
    first, *others = layers
    if isinstance(block, BlockWeights):
        first.check(block)
        features, sums = read_block(block), AttentionSums.of_weights(block)
    else:
        QK, VO, VO_1 = block.attention
        features, sums = block, AttentionSums(QK.squeeze(1), VO, VO_1)
    Psi_Q, Psi_K, Psi_V = (Phi.flatten(2) for Phi in (first.Phi_Q, first.Phi_K, first.Phi_V))
    path = AttentionPath(sums, Psi_Q, Psi_K, Psi_V, first.phi_O1, first.phi_O2)
    part = first.feed_forward(features, rectified=True)
    for layer in others:
        part, path = _next_part(layer, path, part), path.through(layer)
    return _scalars(invariant.scalars, path, part, invariant.constant)


@dataclass(frozen=True)
class AttentionSums:
    """Sums over heads for every pair of the a input channels of a stack."""

    QK: Float[Tensor, "b aD aD"]
    """QK with the channels of W^Q and W^K."""
    VO: Float[Tensor, "b a aD D"]
    """VO with the channels of W^O and W^V, in this order."""
    VO_1: Float[Tensor, "b a aD"]
    """VO times the vector of ones."""

    @classmethod
    def of_weights(cls, weights: BlockWeights) -> Self:
        """Return the sums of block weights with any number of channels."""
        Q, K, V = (heads_side_by_side(per_head) for per_head in (weights.W_Q, weights.W_K, weights.W_V))
        O = weights.W_O.flatten(2, 3)  # [b, a, h D_v, D]  # noqa: E741 - the symbol of the paper
        QK = Q.flatten(1, 2) @ K.flatten(1, 2).transpose(1, 2)
        VO = V.flatten(1, 2).unsqueeze(1) @ O
        return cls(QK, VO, VO.sum(-1))


@dataclass(frozen=True)
class AttentionPath:
    """Attention of a stack's input, and the composed coefficients of its first layers, from a to d channels."""

    sums: AttentionSums
    Psi_Q: Float[Tensor, "d D aD"]
    Psi_K: Float[Tensor, "d D aD"]
    Psi_V: Float[Tensor, "d D aD"]
    psi_O1: Float[Tensor, "d a"]
    psi_O2: Float[Tensor, "d a"]

    def through(self, layer: EquivariantBlockLayer) -> Self:
        """Return the path after a further layer."""
        pairs = ((layer.Phi_Q, self.Psi_Q), (layer.Phi_K, self.Psi_K), (layer.Phi_V, self.Psi_V))
        # [e, D, d D] [d D, a D]
        Psi_Q, Psi_K, Psi_V = (Phi.flatten(2) @ before.flatten(0, 1) for Phi, before in pairs)
        psi_O = self.Psi_V.shape[1] * self.psi_O1 + self.psi_O2  # coefficients of sums over k of W^O
        psi_O1 = layer.phi_O1 @ psi_O + layer.phi_O2 @ self.psi_O1
        return type(self)(self.sums, Psi_Q, Psi_K, Psi_V, psi_O1, layer.phi_O2 @ self.psi_O2)

    def QK(self) -> Float[Tensor, "b d D D"]:
        """Return QK^(l) of each channel, expanded: [b, d, D, D]."""
        right = self.sums.QK @ self.Psi_K.flatten(0, 1).T  # [b, a D, d D]
        right = right.unflatten(2, self.Psi_K.shape[:2]).permute(2, 1, 0, 3)  # [d, a D, b, D]
        product = self.Psi_Q @ right.flatten(2)  # [d, D, b D]
        return product.unflatten(2, right.shape[2:]).permute(2, 0, 1, 3)

    def QK_scalars(self, Phi: Float[Tensor, "r d D D"]) -> Float[Tensor, "b r"]:
        """Return sum_(d,p,q) Phi[r,d,p,q] QK^(l)_d[p,q]: [b, r].

        Phi is pulled back to the stack's input, where networks cost nothing but one product for all of them.
        """
        right = Phi.permute(1, 2, 0, 3).flatten(1, 2).bmm(self.Psi_K)  # [d, D r, a D]
        Psi_Q = self.Psi_Q.flatten(0, 1)  # [d D, a D]
        pulled = Psi_Q.T @ right.reshape(len(Psi_Q), -1)  # [a D, r a D]
        pulled = pulled.unflatten(1, (len(Phi), -1)).transpose(0, 1).flatten(1)  # [r, a D a D]
        return linear(self.sums.QK.flatten(1), pulled)

    def VO_1(self) -> Float[Tensor, "b d D"]:
        """Return VO^(l) times the vector of ones, of each channel: [b, d, D]."""
        psi_O = self.Psi_V.shape[1] * self.psi_O1 + self.psi_O2  # [d, a]
        Psi = psi_O[:, None, :, None] * self.Psi_V.unsqueeze(2)  # [d, D, a, a D]
        return linear(self.sums.VO_1.flatten(1), Psi.flatten(2).flatten(0, 1)).view(-1, *self.Psi_V.shape[:2])

    def VO_rows(self, Phi: Float[Tensor, "r d D"]) -> Float[Tensor, "b r D"]:
        """Return sum_(d,p) Phi[r,d,p] VO^(l)_d[p,j]: [b, r, D]."""
        pulled = (Phi.transpose(0, 1) @ self.Psi_V).transpose(0, 1)  # [r, d, a D]
        each = (self.psi_O2.T @ pulled).transpose(0, 1)  # [a, r, a D]
        summed = (self.psi_O1.T @ pulled).transpose(0, 1)
        ones = (summed @ self.sums.VO_1.unsqueeze(-1)).sum(1)  # [b, r, 1]
        return (each @ self.sums.VO).sum(1) + ones


def _next_part(layer: EquivariantBlockLayer, path: AttentionPath, part: FeedForwardPart) -> FeedForwardPart:
    """Return the feed-forward part after a layer that is not the first."""
    rows = path.VO_rows(layer.rows.term("A", "row_VO")) + layer.rows.term("A", "row_A") @ part.W_A.sum(-1)
    columns = column_features(part.W_A, part.b_A, part.W_B)
    scalars = _scalars(layer.scalars, path, part, layer.constants)
    return layer.assemble(scalars, rows, columns, part.W_A, rectified=True)


def _scalars(
    table: TermTable, path: AttentionPath, part: FeedForwardPart, constants: Float[Tensor, " R"]
) -> Float[Tensor, "b R"]:
    """Return the outputs of a table of scalar terms, with its constants added: [b, R].

    Pulling Phi back to the input costs as much for each row as pushing QK forward to the layer for each network. The
    smaller count decides.
    """
    W_A, b_A, b_B = part.W_A, part.b_A, part.b_B
    sums = scalar_sums(path.VO_1(), W_A.sum((-2, -1)), part.B.sum(1).view_as(b_B), b_A.sum(-1), b_B)
    if len(table.Phi) > len(sums):
        return table(torch.cat([path.QK().flatten(2), sums], dim=-1), constants)
    Phi_QK, Phi = table.Phi.split([table.Phi.shape[-1] - sums.shape[-1], sums.shape[-1]], dim=-1)
    width = path.Psi_Q.shape[1]
    from_QK = path.QK_scalars(Phi_QK.view(*Phi_QK.shape[:2], width, width))
    return linear(sums.flatten(1), Phi.flatten(1), constants) + from_QK
