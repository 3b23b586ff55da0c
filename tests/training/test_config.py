"""The configuration: an exact round trip, and damaged ones that are refused."""

import contextlib
import copy
import functools
import json
import operator
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
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, NetworkSpec, TransformerSpec

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


def places(values, place=()):
    """Yield the place of every value in nested dictionaries and lists."""
    yield place
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield from places(value, (*place, key))


@pytest.mark.parametrize(
    "spec",
    [
        TransformerSpec((BlockSpec(1, 4, 2, 3, 5),), FeedForwardSpec((4, 3, 2)), EmbeddingSpec(1, 4, (2, 3), 6)),
        NetworkSpec((1, 3, 4, 2), ((3, 3), (2, 2), None), strides=(1, 1)),
    ],
)
def test_any_value_of_another_type_is_read_or_refused(spec, tmp_path):
    sound = json.loads(json.dumps({**CONFIG.to_json(), "networks": asdict(spec)}))
    file, refused = tmp_path / "config.json", 0
    for place in places(sound):
        for other in (1.5, "x", [1], {"a": 1}) if place[:1] == ("networks",) else (None, [1]):
            values = copy.deepcopy({"all": sound})
            *parents, last = ("all", *place)
            functools.reduce(operator.getitem, parents, values)[last] = other
            file.write_text(json.dumps(values["all"]))
            with contextlib.suppress(RunError):  # any other exception is a fault
                RunDirectory(tmp_path).read_config()
                continue
            refused += 1
    assert refused > 80


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
