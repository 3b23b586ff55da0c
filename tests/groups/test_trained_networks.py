"""The group keeps the logits of real trained networks: what ties the mathematics to the software."""

import torch

from nfn_transformer import GroupElement, image_logits
from nfn_transformer.groups.equivariance_error import relative_error


def test_logits_of_trained_networks_stay(small, generator):
    weights = small.weights(torch.arange(len(small))).to(torch.float64)
    images = torch.rand(1, 20, 1, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    logits = image_logits(images, weights)
    for condition in (1.0, 1e3):
        g = GroupElement.sample(small.spec, generator, condition, classifier=True)
        moved = g.act(weights)
        assert relative_error(image_logits(images, moved), logits) < 1e-9
        assert relative_error(moved.blocks[0].W_Q, weights.blocks[0].W_Q) > 1e-2
        assert relative_error((~g).act(moved), weights) < 1e-9
