"""`nfn-transformer inspect` and checkpoints that are too large to be read as a whole."""

import json
from dataclasses import replace

import pytest
import torch
from library_models import NanoGPT, UsersViT
from safetensors.torch import save_file
from torch import nn

from nfn_transformer.cli.inspect_command import describe_checkpoints
from nfn_transformer.errors import ZooError
from nfn_transformer.zoo import sources
from nfn_transformer.zoo.collecting import read_outcomes
from nfn_transformer.zoo.sources import FolderSource
from nfn_transformer.zoo.transformer_checkpoint import read_transformer_checkpoint


def test_descriptions_say_sizes_symmetries_and_what_is_open(tmp_path):
    torch.manual_seed(0)
    vit = UsersViT(True)
    torch.save({"state_dict": vit.state_dict()}, tmp_path / "vit.pt")
    nano = {**NanoGPT(False).state_dict(), "stranger.weight": torch.zeros(2)}
    nano["lm_head.weight"] = nano["lm_head.weight"].clone()
    save_file(nano, tmp_path / "nano.safetensors")
    torch.save(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1)).state_dict(), tmp_path / "mlp.pt")
    of_mlp, of_nano, of_vit = (text.split("\n  ") for text in describe_checkpoints([tmp_path], {"heads": 4}, None))
    parameters = sum(map(torch.numel, vit.parameters()))
    assert of_vit[1] == "an nn.TransformerEncoder, under 'state_dict'"
    assert f"parameters: {parameters:,}" in of_vit
    assert "blocks: 2 of width 16, 4 heads of 4, MLP of 24 (relu)" in of_vit
    assert (
        "guessed, as nothing tells it: placement post, activation relu, causal False, epsilon 1e-05, pooling first"
        in (of_vit)
    )
    row = next(line for line in of_vit if line.split()[0] == "0").split()
    W_Q = vit.state_dict()["encoder.layers.0.self_attn.in_proj_weight"][:16]
    assert float(row[1]) == pytest.approx(float(W_Q.square().mean().sqrt()), rel=1e-3)
    assert of_nano[1] == "a nanoGPT"
    assert "head: 16 -> 20, tied to the words, of every token, final norm before_pooling" in of_nano
    assert any(line.endswith("320 stored twice") for line in of_nano)
    assert of_nano[-1] == "not understood: 'stranger.weight'"
    assert "parameters: 17" in of_mlp
    (other,) = describe_checkpoints([tmp_path / "vit.pt"], {"placement": "pre", "activation": "gelu"}, None)
    assert "heads that no shape tells (--n_heads)" in other
    assert "pre-norm" in other
    with pytest.raises(ZooError, match="no such file or folder"):
        list(describe_checkpoints([tmp_path / "none.pt"], {}, None))


def test_large_files_are_read_tensor_by_tensor_alike(tmp_path, monkeypatch):
    torch.manual_seed(0)
    state = UsersViT(True).state_dict()
    torch.save({"state_dict": state, "n_heads": 4}, tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    files = [("a.pt", "a.pt"), ("b.safetensors", "b.safetensors")]

    def read():
        return list(read_outcomes(FolderSource(tmp_path), files, 0, None, read_transformer_checkpoint))

    whole = read()
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 1000)
    for one, other in zip(whole, read(), strict=True):
        assert (one.fault, dict(one.facts)) == (None, {"heads": 4})
        assert torch.equal(torch.from_numpy(one.row), torch.from_numpy(other.row))
        assert replace(one, row=None) == replace(other, row=None)
    state["head.bias"][0] = torch.nan
    save_file(state, tmp_path / "b.safetensors")
    assert read()[1].fault.detail == "holds NaN or Inf"
    (tmp_path / "b.safetensors").write_bytes(b"\7\0\0\0\0\0\0\0{" + bytes(2000))
    assert "not a safetensors file that can be read" in read()[1].fault.detail
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-40])
    assert "truncated or damaged" in read()[0].fault.detail
