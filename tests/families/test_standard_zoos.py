"""Zoos and loose checkpoints of standard transformers: several sizes, folders of their own, what nothing tells."""

import csv
import json

import pytest
import torch
from library_models import NanoGPT, UsersViT
from safetensors.torch import save_file
from standard_networks import VIT

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.weights.standard_pass import standard_outputs
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.network_facts import network_facts
from nfn_transformer.zoo.reading import read_zoo

FACTS = {"activation": "gelu", "norm_placement": "pre"}


@pytest.fixture
def models(tmp_path):
    """Two ViTs of a user, of 2 and 1 blocks, and their zoo."""
    folder, models = tmp_path / "nets", []
    folder.mkdir()
    for seed in range(4):
        torch.manual_seed(seed)
        model = UsersViT(True).eval()
        del model.encoder.layers[2 - seed % 2 :]
        model.encoder.num_layers = 2 - seed % 2
        torch.save({"model_state_dict": model.state_dict()}, folder / f"{seed}.pt")
        models.append(model)
    with open(tmp_path / "scores.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "accuracy"], *([f"{seed}.pt", seed / 10] for seed in range(4))])
    return models, folder, tmp_path / "scores.csv"


def test_transformers_of_several_depths_are_one_zoo_and_predicted_alike(models, capsys):
    networks, folder, table = models
    zoo = read_zoo(folder, "nets", table=table, n_heads=4, facts=FACTS, progress=False)
    assert sorted(spec.blocks for spec in zoo.specs) == [1, 2]
    images = torch.rand(2, 3, 12, 12)
    part = next(part for part in zoo.parts if part.spec.blocks == 2)
    with torch.no_grad():
        expected = torch.stack([networks[int(name[0])](images) for name in part.names])
    torch.testing.assert_close(standard_outputs(images, part.weights(torch.arange(2))), expected)

    predictor = build_predictor(part.spec, ModelConfig("statnn", "no", "no"), seed=1)
    predicted = predictor.predict(part.weights(torch.arange(2)))
    names, (loose,) = read_loose_checkpoints([folder / "0.pt", folder / "2.pt"], part.spec)
    assert len(names) == 2
    assert torch.equal(predictor.predict(loose.weights), predicted)
    assert "taken as in the run: heads 4, placement pre, activation gelu (--n_heads" in capsys.readouterr().err
    read_loose_checkpoints([folder / "0.pt"], part.spec, n_heads=4, sure=("placement", "activation"))
    assert not capsys.readouterr().err
    with pytest.raises(ZooError, match="has blocks 1, expected 2"):
        read_loose_checkpoints([folder / "1.pt"], part.spec)


def test_an_encoder_of_other_networks_names_those_of_the_zoo_and_their_encoders():
    readers = "complete, graph, mlp, probe, products, statnn"
    with pytest.raises(UserError) as raised:
        ModelConfig("inv", "no", "no").check(VIT, "vits")
    assert str(raised.value) == (
        "--enc_mode inv: reads transformers of the Small-Transformer-Zoo, without residual connections; those of zoo "
        f"'vits' are standard transformers (ViT, BERT, GPT-2, Llama and their like), which --enc_mode {readers} read"
    )


def test_a_checkpoint_of_another_kind_is_named_by_its_kind(tmp_path):
    kinds = "a causal standard transformer of words, expected a standard transformer of patches"
    with pytest.raises(ZooError, match=f"is a nanoGPT, {kinds}"):
        read_loose_checkpoints([NanoGPT(True).state_dict()], VIT)


def test_what_nothing_tells_is_said(models):
    _, folder, table = models
    zoo = read_zoo(folder, "nets", table=table, n_heads=4, facts={"activation": "gelu"}, progress=False)
    assert zoo.report.notes[-1] == (
        "nothing tells these facts of an nn.TransformerEncoder, taken for placement post, causal False, epsilon 1e-05, "
        "pooling first (--norm_placement, --causal_attention, --norm_epsilon, --token_pooling)"
    )
    with pytest.raises(
        ZooError, match=r"no shape tells the heads; expected config\.json, --n_heads or n_attention_heads"
    ):
        read_zoo(folder, "nets", table=table, progress=False)


def test_a_folder_for_each_network_has_shares_and_an_older_copy(tmp_path):
    layer, nets = "encoder.layer.0.", tmp_path / "nets"
    square = [f"{layer}attention.{name}.weight" for name in ("attention.query", "attention.key", "attention.value")]
    square += [f"{layer}attention.output.dense.weight"]
    state = {
        **{key: torch.randn(8, 8) for key in square},
        **{f"{layer}{name}.weight": torch.randn(8) for name in ("layernorm_before", "layernorm_after")},
        **{f"{layer}intermediate.dense.weight": torch.randn(6, 8), f"{layer}output.dense.weight": torch.randn(8, 6)},
        **{"embeddings.cls_token": torch.randn(1, 1, 8), "embeddings.position_embeddings": torch.randn(1, 5, 8)},
        **{"embeddings.patch_embeddings.projection.weight": torch.randn(8, 1, 2, 2), "layernorm.weight": torch.ones(8)},
    }
    for name in ("a", "b"):
        (nets / name).mkdir(parents=True)
        (nets / name / "config.json").write_text(json.dumps({"model_type": "vit", "num_attention_heads": 2}))
        torch.save({"epoch": 1}, nets / name / "training_args.bin")
        torch.save(state, nets / name / "pytorch_model.bin")
    shares = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(state)}
    for share in set(shares.values()):
        save_file({key: value for key, value in state.items() if shares[key] == share}, nets / "a" / share)
    (nets / "a" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shares}))
    (tmp_path / "scores.csv").write_text("model,accuracy\na,0.5\nb,0.25\n")
    zoo = read_zoo(nets, "nets", table=tmp_path / "scores.csv", progress=False)
    assert sorted(zoo.names) == ["model.safetensors.index.json", "pytorch_model.bin"]
    assert {(spec.heads, spec.epsilon) for spec in zoo.specs} == {(2, 1e-12)}


def test_heads_that_are_told_anew_are_read_anew(models):
    _, folder, table = models

    def heads(n_heads):
        zoo = read_zoo(folder, "nets", table=table, n_heads=n_heads, facts=FACTS, progress=False)
        return {spec.heads for spec in zoo.specs}

    assert [heads(4), heads(2), heads(4)] == [{4}, {2}, {4}]
    with pytest.raises(ZooError, match="which 5 heads do not divide"):
        heads(5)
    with pytest.raises(UserError, match="--norm_epsilon -1: expected a positive number"):
        network_facts({}, {"norm_epsilon": "-1"}, {})
