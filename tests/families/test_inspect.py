"""`nfn-transformer inspect` and checkpoints that are too large to be read as a whole."""

import json
import re
import zipfile
from dataclasses import replace

import pytest
import torch
from library_models import NanoGPT, UsersViT
from safetensors.torch import save_file
from torch import nn

from nfn_transformer.cli.inspect_command import describe_checkpoints
from nfn_transformer.errors import ZooError
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.zoo import sources, transformer_checkpoint
from nfn_transformer.zoo.collecting import RowMatrix, read_outcomes
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.sources import FolderSource, ZipSource
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
    torch.save({key: tensor.long() for key, tensor in vit.state_dict().items()}, tmp_path / "long.pt")
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    torch.save({"odd.kernel": torch.zeros(2, 2)}, tmp_path / "odd.pt")
    with zipfile.ZipFile(tmp_path / "nets.zip", "w") as archive:
        archive.write(tmp_path / "vit.pt", "vit.pt")
    for file, facts, problem in (
        ("none.pt", {}, "no such file or folder"),
        ("long.pt", {"heads": 4}, r"is a torch\.strided tensor of torch\.int64"),
        ("empty.pt", {}, "holds no tensors"),
        ("odd.pt", {}, r"is a network of no family that is read; expected keys encoder\.0"),
        ("nets.zip", {}, "unpack it first"),
        ("vit.pt", {"omega": 30.0}, "--omega: is no fact of a network of transformer"),
        ("mlp.pt", {"heads": 4}, "--n_heads: is no fact of a network of feed_forward"),
    ):
        with pytest.raises(ZooError, match=problem):
            list(describe_checkpoints([tmp_path / file], facts, None))


@pytest.fixture
def large_files(tmp_path):
    """One network in four forms, of which two are two shares with an index."""
    torch.manual_seed(0)
    state = UsersViT(True).state_dict()
    torch.save({"state_dict": state, "n_heads": 4}, tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    for ending, save in (("safetensors", save_file), ("bin", torch.save)):
        shares = {key: f"c-0000{1 + index // 2 % 2}-of-00002.{ending}" for index, key in enumerate(state)}
        for share in set(shares.values()):
            save({key: value for key, value in state.items() if shares[key] == share}, tmp_path / share)
        (tmp_path / f"c.{ending}.index.json").write_text(json.dumps({"weight_map": shares}))
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    return tmp_path


def read_four(folder):
    files = ["a.pt", "b.safetensors", "c.safetensors.index.json", "c.bin.index.json"]
    pairs = [(name, name) for name in files]
    return list(read_outcomes(FolderSource(folder), pairs, 0, None, read_transformer_checkpoint))


def test_large_files_are_read_tensor_by_tensor_alike(large_files, monkeypatch):
    whole = read_four(large_files)
    spec = FAMILIES["transformer"].spec_from_shapes(dict(whole[0].shapes), dict(whole[0].facts))
    names, groups = read_loose_checkpoints([large_files], spec)
    prints = {place: each for group in groups for place, each in zip(group.positions, group.fingerprints, strict=True)}
    W_2 = groups[0].weights.blocks[1].W_2[:1]
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 20_000)  # shares are smaller, and together larger
    assert max(file.stat().st_size for file in large_files.glob("c-*")) < 20_000
    for one, other in zip(whole, read_four(large_files), strict=True):
        assert (one.fault, dict(one.facts), other.row) == (None, {"heads": 4}, None)
        matrix = RowMatrix(len(one.row), 1)
        matrix.append(other)
        assert torch.equal(torch.from_numpy(one.row), matrix.rows()[0])
        assert replace(one, row=None) == replace(other, state=None)
    large_names, groups = read_loose_checkpoints([large_files], spec)
    assert (large_names, [each.positions for each in groups]) == (names, [[0], [1], [2], [3]])
    assert [group.fingerprints[0] for group in groups] == [prints[place] for place in range(4)]
    assert all(torch.equal(group.weights.blocks[1].W_2, W_2) for group in groups)
    assert describe_last_line(large_files / "c.bin.index.json") == "not understood: nothing"


def describe_last_line(path):
    (text,) = describe_checkpoints([path], {}, None)
    return text.split("\n  ")[-1]


def test_faults_of_large_files_are_named(large_files, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 20_000)

    def details():
        return [outcome.fault.detail for outcome in read_four(large_files)]

    state = UsersViT(True).state_dict()
    state["head.bias"][0] = torch.nan
    save_file(state, large_files / "b.safetensors")
    (large_files / "c-00002-of-00002.bin").unlink()
    damaged = bytearray((large_files / "a.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (large_files / "d.pt").write_bytes(damaged)
    (large_files / "a.pt").write_bytes(damaged[:-40])
    (of_bits,) = read_outcomes(FolderSource(large_files), [("d.pt", "d.pt")], 0, None, read_transformer_checkpoint)
    assert "damaged" in of_bits.fault.detail
    (large_files / "c.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../c.safetensors"}}))
    of_torch, of_one, of_shares, of_saved = details()
    assert "truncated or damaged" in of_torch
    assert of_one == "'head.bias' holds NaN or Inf"
    assert of_shares == "its index names '../c.safetensors', expected a .safetensors or .bin file beside it"
    assert "'c-00002-of-00002.bin', which its index names: No such file or directory" in of_saved
    (large_files / "b.safetensors").write_bytes(b"\7\0\0\0\0\0\0\0{" + bytes(30_000))
    assert "not a safetensors file that can be read" in details()[1]
    save_file({"0.weight": torch.zeros(100, 100)}, large_files / "b.safetensors")
    assert details()[1].endswith("and files of other networks are read up to 268,435,456 bytes")
    monkeypatch.setattr(transformer_checkpoint, "free_bytes", lambda device: 1000)
    save_file(state, large_files / "b.safetensors")
    assert re.fullmatch(r"has [\d,]+ numbers, which take [\d,]+ bytes of memory; 1,000 are free", details()[1])
    with zipfile.ZipFile(large_files / "z.zip", "w") as archive:
        archive.write(large_files / "b.safetensors", "b.safetensors")
    files = [("b.safetensors", "b.safetensors")]
    (outcome,) = read_outcomes(ZipSource(large_files / "z.zip"), files, 0, None, read_transformer_checkpoint)
    assert outcome.fault.detail.endswith("that a zoo's file may have; the files of a folder may be larger")
