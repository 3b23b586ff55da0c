"""Shared parts of layers between weight spaces: a ReLU that knows its weights, and what printing a layer tells."""

import pytest
import torch
from symmetry import random_block, random_feed_forward, random_transformer

from nfn_transformer import (
    BlockSpec,
    EquivariantBlockLayer,
    FeedForwardSpec,
    HNPLinear,
    HNPPooling,
    HNPSLayer,
    HNPSPooling,
    InvariantBlockLayer,
    MAGEPLayer,
    NFTBlock,
    NFTEmbedding,
    NPLinear,
    NPPooling,
    TransformerSpec,
    relu,
)
from nfn_transformer.layers.graph_layers import MessageLayer
from nfn_transformer.layers.scaling import RootMeanSquares, Standardize

BLOCK, CLASSIFIER = BlockSpec(2, 6, 3, 2, 5), FeedForwardSpec((6, 4, 3))


def test_relu_acts_on_everything_of_feed_forward_weights_and_on_the_perceptron_of_a_block(generator):
    U, V = random_block(BLOCK, 2, 3, generator), random_feed_forward(CLASSIFIER, 2, 3, generator)
    for name, tensor in vars(relu(U)).items():
        expected = vars(U)[name] if name in ("W_Q", "W_K", "W_V", "W_O") else vars(U)[name].clamp(min=0)
        assert torch.equal(tensor, expected), name
    assert all(map(torch.equal, relu(V).tensors(), [tensor.clamp(min=0) for tensor in V.tensors()]))
    whole = random_transformer(TransformerSpec((BLOCK,), CLASSIFIER), 1, generator)
    with pytest.raises(TypeError, match="TransformerWeights"):
        relu(whole)


def test_printing_a_layer_tells_its_sizes_and_its_symmetry():
    text = repr(EquivariantBlockLayer(BLOCK, 2, 5))
    assert "BlockSpec(heads=2, width=6, key=3, value=2, hidden=5), 2 -> 5, symmetry: published group of a" in text
    assert "2 -> 5, symmetry: published group of a block" in repr(InvariantBlockLayer(BLOCK, 2, 5))
    for module, symmetry in (
        (HNPSLayer(CLASSIFIER, 2, 5), "hidden neurons permuted and scaled"),
        (MAGEPLayer(CLASSIFIER, 2, 5), "hidden neurons permuted and scaled"),
        (NPLinear(CLASSIFIER, 2, 5), "neurons of all layers permuted"),
        (HNPLinear(CLASSIFIER, 2, 5), "hidden neurons permuted"),
        (NFTEmbedding(CLASSIFIER, 2, 5), "hidden neurons permuted"),
    ):
        assert f"FeedForwardSpec(sizes=(6, 4, 3)), 2 -> 5, symmetry: {symmetry}" in repr(module).replace("\n", " ")
    for module in (HNPSPooling(CLASSIFIER, 2), NPPooling(CLASSIFIER, 2), HNPPooling(CLASSIFIER, 2)):
        assert f"2 -> {module.out_channels}, symmetry: " in repr(module)
    assert "4 -> 4, symmetry: hidden neurons permuted" in repr(NFTBlock(CLASSIFIER, 4))
    assert "MessageLayer(\n  8, symmetry: nodes and edges permuted" in repr(MessageLayer(8, last=False))
    assert "TermTable(row_VO (6,), row_A () -> A (5,))" in repr(EquivariantBlockLayer(BLOCK, 2, 5))
    assert repr(Standardize([2, 3])) == "Standardize(5 numbers in 2 groups, log_magnitudes=False)"
    assert repr(RootMeanSquares(7)) == "RootMeanSquares(7 tensors)"


def test_a_plain_tensor_is_a_clear_error(generator):
    layers = [EquivariantBlockLayer(BLOCK, 1, 2), InvariantBlockLayer(BLOCK, 1, 2)]
    layers += [kind(CLASSIFIER, 1, 2) for kind in (HNPSLayer, MAGEPLayer, NPLinear, HNPLinear, NFTEmbedding)]
    layers += [HNPSPooling(CLASSIFIER, 1), NPPooling(CLASSIFIER, 1), HNPPooling(CLASSIFIER, 1), NFTBlock(CLASSIFIER, 1)]
    for layer in layers:
        expected = "BlockWeights" if layer.spec is BLOCK else "FeedForwardWeights"
        with pytest.raises(
            TypeError, match=rf"{type(layer).__name__}: expected {expected}, got a Tensor of shape \(2, 3\)"
        ):
            layer.check(torch.zeros(2, 3))
        with pytest.raises(TypeError):  # here by jaxtyping's check, which the tests add
            layer(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="EquivariantBlockLayer: expected BlockWeights, got a FeedForwardWeights"):
        layers[0].check(random_feed_forward(CLASSIFIER, 1, 1, generator))
    with pytest.raises(TypeError, match="relu"):
        relu(torch.zeros(2, 3))
