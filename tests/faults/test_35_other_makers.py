"""Fault 35: a network of another maker is told by one missing key, and not what it is and what can be done."""

import pytest
import torch
from small_zoo import SPEC, SmallZoo, saved
from torch import nn

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.reading import read_zoo


def keys(*names: str) -> dict:
    return {name: torch.zeros(4, 4) for name in names}


OTHERS = {
    "an nn.TransformerEncoder": nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2
    ).state_dict(),
    "a Hugging Face ViT": keys("vit.encoder.layer.0.attention.attention.query.weight"),
    "a Hugging Face BERT or RoBERTa": keys("bert.encoder.layer.0.attention.self.query.weight"),
    "a Hugging Face GPT-2": keys("transformer.h.0.attn.c_attn.weight"),
    "a Llama, Mistral or Qwen2": keys("model.layers.0.self_attn.q_proj.weight"),
    "a timm ViT": keys("blocks.0.attn.qkv.weight", "patch_embed.proj.weight"),
    "a CNN": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)).state_dict(),
    "an INR": nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 3)).state_dict(),
    "an MLP": nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 3)).state_dict(),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_35_the_error_says_what_the_file_looks_like_and_what_can_be_done(tmp_path, kind):
    path = tmp_path / "a.pt"
    path.write_bytes(saved({"epoch": 1, "state_dict": OTHERS[kind]} if "T" in kind else OTHERS[kind]))
    with pytest.raises(ZooError) as error:
        read_loose_checkpoints([path], SPEC)
    message = str(error.value)
    assert f"1 files look like {kind}" in message
    assert "expected keys encoder.0.attention.queries.weight" in message
    can = "are chains of linear layers" if kind in ("a CNN", "an INR", "an MLP") else "where all networks of a zoo are"
    assert can in message


def test_35_so_does_the_error_of_a_zoo(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(12):
        zoo.add(f"run{run}", keys("blocks.0.fc1.lora_A.weight"))
    zoo.write_table()
    with pytest.raises(
        ZooError, match=r"12 files look like a LoRA or another adapter, the first is 'run0_75_0\.pt': expected"
    ):
        read_zoo(zoo.path, "mnist", progress=False)


def test_35_standard_transformers_are_read_in_a_zoo_of_their_own(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(12):
        zoo.add(f"run{run}", OTHERS["an nn.TransformerEncoder"])
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", n_heads=2, progress=False, facts={"norm_placement": "pre"})
    assert len(read) == 12
    assert (read.spec.family, read.spec.heads, read.spec.placement) == ("transformer", 2, "pre")
