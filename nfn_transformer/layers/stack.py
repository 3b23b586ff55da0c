"""Equivariant layers, a ReLU after each, and the invariant layer at their end, without ever expanding the attention."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from nfn_transformer.features.blocks import BlockFeatures, column_features, read_block
from nfn_transformer.layers.attention_path import AttentionPath, AttentionSums
from nfn_transformer.layers.equivariant import EquivariantBlockLayer, FeedForwardPart
from nfn_transformer.layers.invariant import InvariantBlockLayer
from nfn_transformer.layers.terms import TermTable
from nfn_transformer.weights.containers import BlockWeights


def block_invariants(
    layers: Sequence[EquivariantBlockLayer], invariant: InvariantBlockLayer, weights: BlockWeights
) -> Tensor:
    """The same function as calling the layers one after another, each followed by `equivariant.relu`, then `invariant`.

    Args:
        layers: at least one, each of as many input channels as the one before has output channels.
        invariant: of as many channels as the last layer gives.
        weights: of as many channels a as the first layer wants.

    Returns invariants [b, e].

    Raises:
        SpecError: the weights do not have the sizes or channels that the first layer was built for.
    """
    layers[0].check(weights)
    return _invariants(layers, invariant, read_block(weights), AttentionSums.of_weights(weights))


def feature_invariants(
    layers: Sequence[EquivariantBlockLayer], invariant: InvariantBlockLayer, features: BlockFeatures
) -> Tensor:
    """The same from the features of block weights with one channel."""
    return _invariants(layers, invariant, features, AttentionSums.of_features(features))


def _invariants(
    layers: Sequence[EquivariantBlockLayer],
    invariant: InvariantBlockLayer,
    features: BlockFeatures,
    sums: AttentionSums,
) -> Tensor:
    first, *others = layers
    path = AttentionPath.through_first(sums, first)
    part = first.feed_forward(features, rectified=True)
    for layer in others:
        part, path = _next(layer, path, part), path.through(layer)
    return _scalars(invariant.scalars, path, part, invariant.constant)


def _next(layer: EquivariantBlockLayer, path: AttentionPath, part: FeedForwardPart) -> FeedForwardPart:
    """What a layer that is not the first makes of the feed-forward part."""
    rows = path.VO_rows(layer.rows.term("A", "row_VO")) + layer.rows.term("A", "row_A") @ part.W_A.sum(-1)
    columns = column_features(part.W_A, part.b_A, part.W_B)
    scalars = layer.scalars.named(_scalars(layer.scalars, path, part, layer.constants))
    return layer.assemble(scalars, rows, columns, part.W_A, rectified=True)


def _scalars(table: TermTable, path: AttentionPath, part: FeedForwardPart, constants: Tensor) -> Tensor:
    """Outputs of a table of scalar terms, with its constants added: [b, R].

    Either its Phi is pulled back to the input, which costs as much for each of its rows, or QK is pushed forward to
    the layer, which costs as much for each network.
    """
    sums = part.scalar_sums(path.VO_1())
    if table.rows > len(sums):
        return table.mixed(torch.cat([path.QK().flatten(2), sums], dim=-1), constants)
    Phi_QK, Phi = table.Phi.split([table.Phi.shape[-1] - sums.shape[-1], sums.shape[-1]], dim=-1)
    width = path.Psi_Q.shape[1]
    from_QK = path.QK_scalars(Phi_QK.view(*Phi_QK.shape[:2], width, width))
    return linear(sums.flatten(1), Phi.flatten(1), constants) + from_QK
