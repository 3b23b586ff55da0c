"""Fault 8: blocks that share their tensors claim more numbers than the file has bytes, and are refused."""

import torch
from small_zoo import SPEC, saved, state_dict

from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec, TransformerSpec
from nfn_transformer.zoo import checkpoint
from nfn_transformer.zoo.checkpoint import read_checkpoint

WIDE = TransformerSpec((BlockSpec(2, 32, 16, 16, 128),) * 6, FeedForwardSpec((32, 4, 3)))


def test_08_blocks_that_share_their_tensors_are_used():
    state = state_dict(0, WIDE)
    shared = {
        key: state[f"encoder.0.{key.split('.', 2)[2]}"] if key.startswith("encoder") else state[key] for key in state
    }
    content = saved(shared)
    outcome = read_checkpoint("a.pt", content)
    assert outcome.fault is None
    assert len(outcome.row) > len(content) / 4
    assert sum(4 * value.numel() for value in shared.values()) > len(content)
    assert torch.equal(torch.from_numpy(outcome.row), torch.cat([value.flatten() for value in shared.values()]))


def test_08_many_blocks_that_share_one_tensor_have_a_bound(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_FILE_BYTES", 1000)
    state = state_dict(0, WIDE)
    many = TransformerSpec(WIDE.blocks * 8, FeedForwardSpec((32, 4, 3)))
    shared = {
        key: state[f"encoder.0.{key.split('.', 2)[2]}"] if key.startswith("encoder") else state[key]
        for key in state_dict(0, many)
    }
    assert "claims" in checkpoint.read_checkpoint("a.pt", saved(shared)).fault.detail
    assert checkpoint.read_checkpoint("a.pt", saved(state_dict(0, SPEC))).fault is None
