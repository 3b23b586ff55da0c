"""The configuration: an exact round trip, and damaged ones that are refused."""

import json
import subprocess
from dataclasses import asdict, replace

import pytest

from nfn_transformer.errors import RunError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training import config
from nfn_transformer.training.config import (
    DataConfig,
    RunConfig,
    TrainingConfig,
    installed_versions,
    spec_from_json,
)
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

CONFIG = RunConfig(
    seed=4,
    model="transformer_nfn",
    data=DataConfig("mnist", "somewhere", cut_off=0.2, n_heads=3),
    predictor=ModelConfig(
        "mlp", "hnps", "no", options={"transformers_nfn_channels": (3, 4), "classifier_nfn_channels": (5,)}
    ),
    training=TrainingConfig(epochs=7, lr=1),
    versions=installed_versions(),
)


def test_round_trip():
    assert RunConfig.from_json(json.loads(json.dumps(CONFIG.to_json()))) == CONFIG
    for embedding in (None, EmbeddingSpec(1, 4, (2, 3), 6)):
        spec = TransformerSpec((BlockSpec(1, 4, 2, 3, 5),) * 2, FeedForwardSpec((4, 3, 2)), embedding)
        assert spec_from_json(json.loads(json.dumps(asdict(spec)))) == spec


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("predictor", "enc_mode", "foo"),
        ("predictor", "transformers_nfn_channels", []),
        ("predictor", "num_out_encoder", 0),
        ("training", "lr", "x"),
        ("training", "lr", -1.0),
        ("training", "batch_size", 0),
        ("training", "optimizer", "adagrad"),
        ("data", "data_path", None),
        ("data", "cut_off", "x"),
        ("data", "allow_faulty", 1),
        (None, "seed", None),
        (None, "seed", True),
    ],
)
def test_damaged_configurations_are_refused(part, name, value):
    values = CONFIG.to_json()
    (values if part is None else values[part])[name] = value
    with pytest.raises(RunError, match="the configuration is not one of this version"):
        RunConfig.from_json(values)
    del (values if part is None else values[part])[name]
    with pytest.raises(RunError, match=f"not one of this version: '{name}'"):
        RunConfig.from_json(values)


def test_the_commit_of_a_checkout(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    module = tmp_path / "nfn_transformer/training/config.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(config, "__file__", str(module))
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    assert config.checkout_commit() == ""
    monkeypatch.delenv("GIT_DIR")
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    (tmp_path / "notes.txt").write_text("of the user")
    assert config.checkout_commit() == commit
    (module.parent / "new.py").write_text("")
    assert config.checkout_commit() == f"{commit} with uncommitted changes"


def test_command_and_commit_are_recorded_and_part_of_nothing_else():
    changed = replace(CONFIG, command="python main.py", commit="abc")
    assert changed == CONFIG
    assert changed.key_values() == CONFIG.key_values()
    read = RunConfig.from_json(changed.to_json())
    assert (read.command, read.commit) == ("python main.py", "abc")
