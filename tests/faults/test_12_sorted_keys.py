"""Fault 12: plain networks whose keys safetensors has sorted: a bias before its weight, layer 10 before layer 2."""

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.feed_forward_networks import layout_of, read_networks
from nfn_transformer.zoo.network_checkpoint import network_outcome, read_network_checkpoint


def test_12_layers_are_paired_by_name_and_ordered_by_number(tmp_path):
    network = nn.Sequential(*(nn.Linear(4, 4) if place % 2 == 0 else nn.ReLU() for place in range(13)))
    state = network.state_dict()
    save_file(state, tmp_path / "n.safetensors")
    stored = dict(sorted(load_file(tmp_path / "n.safetensors").items()))
    assert list(stored)[:4] == ["0.bias", "0.weight", "10.bias", "10.weight"]
    assert layout_of(stored) == layout_of(state)
    pairs = zip(*(read_networks([each], layout_of(each)).tensors() for each in (stored, state)), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("bias", [True, False])
def test_12_a_safetensors_file_is_one_network_however_often_it_is_read(bias):
    """The library gives the keys in another order each time; layers of one size would change places unnoticed."""
    network = nn.Sequential(*(nn.Linear(4, 4, bias) if place % 2 == 0 else nn.ReLU() for place in range(13)))
    state = network.state_dict()
    content = save(state)
    rows = [read_network_checkpoint("n.safetensors", content).row for _ in range(20)]
    expected = network_outcome("n.pt", state, len(content)).row
    assert all((row == expected).all() for row in rows)


def test_12_other_names_are_ordered_where_the_sizes_tell_it():
    def state(*sizes):
        layers = zip(("input", "hidden", "end"), sizes[:-1], sizes[1:], strict=True)
        network = nn.ModuleDict({name: nn.Linear(before, after) for name, before, after in layers})
        return network.state_dict(), dict(sorted(network.state_dict().items()))

    plain, ordered = state(2, 5, 4, 3)
    assert layout_of(ordered) == layout_of(plain)
    plain, ordered = state(4, 4, 4, 4)
    assert layout_of(plain).names == ("input", "hidden", "end")
    with pytest.raises(SpecError, match="the order of the layers cannot be told from sorted keys"):
        layout_of(ordered)
