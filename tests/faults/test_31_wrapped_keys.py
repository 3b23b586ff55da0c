"""Fault 31: keys with the prefixes of wrappers, weights inside training checkpoints, safetensors, Git LFS pointers."""

import json

import pytest
import torch
from safetensors.torch import save as safetensors_bytes
from small_zoo import SPEC, SmallZoo, saved, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.checkpoint import read_checkpoint
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.reading import read_zoo

STATE = state_dict(5)
EXPECTED = torch.cat([value.flatten() for value in STATE.values()])
EMA = {key: value + 1 for key, value in STATE.items()}


def prefixed(prefix: str, state: dict = STATE) -> dict:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPED = {
    "data parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "model": prefixed("model."),
    "both": prefixed("module._orig_mod."),
    "an encoder of its own": prefixed("model.encoder."),
    "plain dictionary": {"epoch": 3, "state_dict": STATE, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}},
    "lightning": {"epoch": 3, "state_dict": {**prefixed("net."), "loss.weight": torch.ones(2)}, "callbacks": {}},
    "average beside": {"model": STATE, "ema": EMA},
    "average by prefix": {"state_dict": {**prefixed("model."), **prefixed("ema_model.", EMA)}},
    "nested": {"checkpoint": {"model_state_dict": prefixed("module.")}},
    "any order": dict(reversed(STATE.items())),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_31_the_network_in_a_file_is_found(kind):
    outcome = read_checkpoint("a.pt", saved(WRAPPED[kind]))
    assert outcome.fault is None
    assert torch.equal(torch.from_numpy(outcome.row), EXPECTED)
    assert bool(outcome.form) == (kind != "any order")


@pytest.mark.parametrize(("kind", "key"), [("average beside", "ema"), ("average by prefix", "ema_model")])
def test_31_a_key_names_another_network(kind, key):
    outcome = read_checkpoint("a.pt", saved(WRAPPED[kind]), key)
    assert torch.equal(torch.from_numpy(outcome.row), EXPECTED + 1)
    detail = read_checkpoint("a.pt", saved(WRAPPED[kind]), "swa").fault.detail
    assert detail.startswith("--weights_key swa: expected one network there, got 0; it holds under")


def test_31_of_several_networks_without_a_usual_name_one_must_be_named():
    detail = read_checkpoint("a.pt", saved({"teacher": STATE, "student": EMA})).fault.detail
    assert detail == "holds 2 networks: under 'teacher', under 'student'; --weights_key NAME chooses one"


def test_31_a_zoo_of_wrapped_keys_says_so_and_is_cached(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(30):
        zoo.add(f"run{run}", {"epoch": 3, "state_dict": prefixed("module.", state_dict(run)), "ema": EMA})
    zoo.write_table()
    for _ in range(2):
        read = read_zoo(zoo.path, "mnist", progress=False)
        assert "30 read under 'state_dict', after 'module.' (1 other networks in the file)" in read.report.summary()
    average = read_zoo(zoo.path, "mnist", progress=False, weights_key="ema")
    assert torch.equal(average.rows[3], EXPECTED + 1)


def test_31_safetensors_are_read_wherever_pt_files_are(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo", runs=10)
    for row in range(0, 10, 2):
        file = zoo.rows[row]["ckpt_file"].removesuffix(".pt")
        (zoo.path / f"{file}.pt").unlink()
        (zoo.path / f"{file}.safetensors").write_bytes(safetensors_bytes(state_dict(row)))
        zoo.rows[row]["ckpt_file"] = f"{file}.safetensors"
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert read.runs == [f"run{run:03d}" for run in range(10)]
    assert torch.equal(read.rows[4], torch.cat([value.flatten() for value in state_dict(4).values()]))
    names, _ = read_loose_checkpoints([zoo.path / "mnist"], SPEC)
    assert len(names) == 10
    damaged = safetensors_bytes(STATE)[:-4]
    assert "not a safetensors file that can be read" in read_checkpoint("a.safetensors", damaged).fault.detail


def test_31_shards_are_read_by_their_index(tmp_path):
    files = {"model-00001-of-00002.safetensors": list(STATE)[:9], "model-00002-of-00002.safetensors": list(STATE)[9:]}
    for file, keys in files.items():
        (tmp_path / file).write_bytes(safetensors_bytes({key: STATE[key] for key in keys}))
    weight_map = {key: file for file, keys in files.items() for key in keys}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for path in (tmp_path, index):
        names, (group,) = read_loose_checkpoints([path], SPEC)
        assert names == [str(index)]
        assert torch.equal(group.weights.classifier.biases[0][0, 0], STATE["classifier.fc1.bias"])
    index.write_text(json.dumps({"weight_map": {**weight_map, "x": "../x.safetensors"}}))
    with pytest.raises(
        ZooError, match=r"its index names '\.\./x\.safetensors', expected a \.safetensors or \.bin file"
    ):
        read_loose_checkpoints([index], SPEC)
    next(tmp_path.glob("*-00002-*")).unlink()
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ZooError, match=r"'model-00002-of-00002\.safetensors', which its index names: No such file"):
        read_loose_checkpoints([index], SPEC)


def test_31_a_git_lfs_pointer_says_what_fetches_the_file():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 16926\n"
    assert read_checkpoint("a.pt", pointer).fault.detail.endswith("git lfs pull fetches it")
