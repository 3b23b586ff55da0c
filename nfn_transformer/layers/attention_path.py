"""The attention part of a stack of polynomial layers, composed instead of expanded.

E(Q), E(K), E(V), E(O) (arXiv 2410.04209, section 5) are linear with coefficients that no data touch, and nothing
non-linear acts between them, so after any stack of layers

    W^Q_i^(l) = Psi_Q W^Q_i      W^O_i^(l)[c,k] = psi_O1 sum_k' W^O_i[c,k'] + psi_O2 W^O_i[c,k]

with K and V like Q, each Psi the product of the layers' Phi. What a layer reads of the attention is then

    QK^(l) = Psi_Q QK Psi_K^T    VO^(l) = Psi_V VO (psi_O2 I + psi_O1 1 1^T)

and its terms need nothing but the input's two D x D matrices QK and VO, of every pair of input channels.

Index letters: b network, a input channel of the stack, d channel of the layer that reads, r output number of its terms.
"""

from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor, nn
from torch.nn.functional import linear

from nfn_transformer.features.blocks import BlockFeatures, heads_side_by_side
from nfn_transformer.weights.containers import BlockWeights


class AttentionLayer(Protocol):
    """The attention terms of an equivariant layer from d to e channels: Phi_Q, Phi_K, Phi_V [e, D, d, D] and
    phi_O1, phi_O2 [e, d]."""

    Phi_Q: nn.Parameter
    Phi_K: nn.Parameter
    Phi_V: nn.Parameter
    phi_O1: nn.Parameter
    phi_O2: nn.Parameter


@dataclass(frozen=True)
class AttentionSums:
    """Sums over heads for every pair of the a input channels of a stack.

    Shapes: QK [b, a D, a D]; VO [b, a, a D, D], where the first a is the channel of W^O; VO_1 [b, a, a D], VO times
    the vector of ones.
    """

    QK: Tensor
    VO: Tensor
    VO_1: Tensor

    @classmethod
    def of_features(cls, features: BlockFeatures) -> Self:
        """Of features with one channel, which hold its only pair."""
        return cls(features.QK.squeeze(1), features.VO, features.VO_1)

    @classmethod
    def of_weights(cls, weights: BlockWeights) -> Self:
        """Of block weights with any number of channels."""
        Q, K, V = (heads_side_by_side(per_head) for per_head in (weights.W_Q, weights.W_K, weights.W_V))
        O = weights.W_O.flatten(2, 3)  # [b, a, h D_v, D]  # noqa: E741 - the symbol of the paper
        QK = Q.flatten(1, 2) @ K.flatten(1, 2).transpose(1, 2)
        VO = V.flatten(1, 2).unsqueeze(1) @ O
        return cls(QK, VO, VO.sum(-1))


@dataclass(frozen=True)
class AttentionPath:
    """A stack's input and the composed coefficients of its layers so far, from a to d channels.

    Shapes: Psi_Q, Psi_K, Psi_V [d, D, a D]; psi_O1, psi_O2 [d, a].
    """

    sums: AttentionSums
    Psi_Q: Tensor
    Psi_K: Tensor
    Psi_V: Tensor
    psi_O1: Tensor
    psi_O2: Tensor

    @classmethod
    def through_first(cls, sums: AttentionSums, layer: AttentionLayer) -> Self:
        """The path after a stack's first layer."""
        Psi = (Phi.flatten(2) for Phi in (layer.Phi_Q, layer.Phi_K, layer.Phi_V))
        return cls(sums, *Psi, layer.phi_O1, layer.phi_O2)

    def through(self, layer: AttentionLayer) -> Self:
        """The path after a further layer."""
        pairs = ((layer.Phi_Q, self.Psi_Q), (layer.Phi_K, self.Psi_K), (layer.Phi_V, self.Psi_V))
        Psi = ((Phi.flatten(2) @ before.flatten(0, 1)) for Phi, before in pairs)  # [e, D, d D] [d D, a D]
        psi_O1 = layer.phi_O1 @ self._row_sums + layer.phi_O2 @ self.psi_O1
        return type(self)(self.sums, *Psi, psi_O1, layer.phi_O2 @ self.psi_O2)

    @property
    def _row_sums(self) -> Tensor:
        """What sums over k of W^O are multiplied by: D psi_O1 + psi_O2, [d, a]."""
        return self.Psi_V.shape[1] * self.psi_O1 + self.psi_O2

    def QK(self) -> Tensor:
        """QK^(l) of each channel, expanded: [b, d, D, D]."""
        right = self.sums.QK @ self.Psi_K.flatten(0, 1).T  # [b, a D, d D]
        right = right.unflatten(2, self.Psi_K.shape[:2]).permute(2, 1, 0, 3)  # [d, a D, b, D]
        product = self.Psi_Q @ right.flatten(2)  # [d, D, b D]
        return product.unflatten(2, right.shape[2:]).permute(2, 0, 1, 3)

    def QK_scalars(self, Phi: Tensor) -> Tensor:
        """sum_(d,p,q) Phi[r,d,p,q] QK^(l)_d[p,q] from Phi [r, d, D, D]: [b, r].

        Phi is pulled back to the stack's input, where networks cost nothing but one product for all of them.
        """
        right = Phi.permute(1, 2, 0, 3).flatten(1, 2).bmm(self.Psi_K)  # [d, D r, a D]
        Psi_Q = self.Psi_Q.flatten(0, 1)  # [d D, a D]
        pulled = Psi_Q.T @ right.reshape(len(Psi_Q), -1)  # [a D, r a D]
        pulled = pulled.unflatten(1, (len(Phi), -1)).transpose(0, 1).flatten(1)  # [r, a D a D]
        return linear(self.sums.QK.flatten(1), pulled)

    def VO_1(self) -> Tensor:
        """VO^(l) times the vector of ones, of each channel: [b, d, D]."""
        Psi = self._row_sums[:, None, :, None] * self.Psi_V.unsqueeze(2)  # [d, D, a, a D]
        return linear(self.sums.VO_1.flatten(1), Psi.flatten(2).flatten(0, 1)).view(-1, *self.Psi_V.shape[:2])

    def VO_rows(self, Phi: Tensor) -> Tensor:
        """sum_(d,p) Phi[r,d,p] VO^(l)_d[p,j] from Phi [r, d, D]: [b, r, D]."""
        pulled = (Phi.transpose(0, 1) @ self.Psi_V).transpose(0, 1)  # [r, d, a D]
        each = (self.psi_O2.T @ pulled).transpose(0, 1)  # [a, r, a D]
        summed = (self.psi_O1.T @ pulled).transpose(0, 1)
        ones = (summed @ self.sums.VO_1.unsqueeze(-1)).sum(1)  # [b, r, 1]
        return (each @ self.sums.VO).sum(1) + ones
