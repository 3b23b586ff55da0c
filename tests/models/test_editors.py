"""Editors of feed-forward networks commute with their group; the flattened baseline does not."""

from pkgutil import resolve_name

import pytest
import torch
from random_networks import SPECS, random_networks

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.groups.network import NetworkElement
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.registry import ENCODER, entries

EDITORS = {name: entry.edits["feed_forward"] for name, entry in entries(ENCODER).items() if entry.edits}


def editor(name, spec, U):
    config = ModelConfig.from_flags({"enc_mode": name}).branch_config(ENCODER)
    torch.manual_seed(0)
    module = resolve_name(EDITORS[name])(spec, config).double()
    module.fit_normalization([U])
    return module


@pytest.mark.parametrize("name", EDITORS)
@pytest.mark.parametrize("kind", ["siren", "tanh cnn", "relu cnn"])
def test_editing_commutes_with_the_group(name, kind, generator):
    spec, U = SPECS[kind], random_networks(SPECS[kind], 3, generator)
    module = editor(name, spec, U)
    largest_scale = 1e4 if name in ("hnps", "bilinear") else 1.0
    g = NetworkElement.sample(spec, generator, largest_scale)
    with torch.no_grad():
        changed, moved = module(U), module(g.act(U))
    error = relative_error(moved, g.act(changed))
    assert error > 1e-4 if name == "mlp" else error < 1e-9
    assert all(1e-5 < relative_error(a, b) < 0.1 for a, b in zip(changed.tensors(), U.tensors(), strict=True))
