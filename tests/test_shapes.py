"""Shapes are checked under the tests: the checks of jaxtyping are on, and see a wrong shape."""

import jaxtyping
import pytest
import torch

from nfn_transformer.features.blocks import BlockFeatures, column_features
from nfn_transformer.groups.complete import EmbeddingShifts


def test_a_wrong_shape_is_an_error_in_functions_and_in_dataclasses():
    W_A, b_A, W_B = torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 5), torch.zeros(2, 1, 5, 4)
    assert column_features(W_A, b_A, W_B).shape == (2, 1, 5, 6)
    with pytest.raises(jaxtyping.TypeCheckError, match="b_A"):
        column_features(W_A, b_A[..., :4], W_B)
    with pytest.raises(jaxtyping.TypeCheckError, match="rows"):
        BlockFeatures(torch.zeros(2, 1, 30), torch.zeros(2, 1, 5, 6), torch.zeros(2, 1, 4, 4), W_A)
    with pytest.raises(jaxtyping.TypeCheckError, match="bias"):
        EmbeddingShifts(torch.zeros(1, 2, 2), torch.zeros(1))
