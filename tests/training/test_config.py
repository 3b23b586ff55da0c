"""The configuration: an exact round trip, and damaged ones that are refused."""

import json
from dataclasses import asdict

import pytest

from nfn_transformer.errors import RunError
from nfn_transformer.models.config import ModelConfig
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
