"""The four tree models by name, and what their runs leave."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from running import COSTS

from nfn_transformer import gbm, xgb
from nfn_transformer.trees.config import TREE_MODELS

COMMANDS = {"gbtree": xgb, "dart": xgb, "gbdt": gbm, "rf": gbm}
PROGRAMS = {"gbtree": "xgb.py", "dart": "xgb.py", "gbdt": "gbm.py", "rf": "gbm.py"}
# DART takes 10 s on flattened weights.
FEATURES = {"gbtree": "raw", "dart": "statistics", "gbdt": "raw", "rf": "raw"}
CONFIGS = {model: replace(TREE_MODELS[model].config(), features=FEATURES[model]) for model in COMMANDS}
TREES = {"xgb.py": "best.xgboost.json", "gbm.py": "best.lightgbm.txt"}
MODELS = pytest.mark.parametrize("model", PROGRAMS)
SETTINGS = ("--dataset", "digits", "--cut_off", 0.75, "--seed", 1, "--device", "cpu", "--wandb", "False")


def rows(path: Path, without: Sequence[str] = ()) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if name not in without} for row in csv.DictReader(file)]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def outcome(run_directory: Path, model: str) -> tuple:
    """Everything that must be equal between two runs with one seed: all but costs and places."""
    return (
        rows(run_directory / "metrics.csv", without=COSTS),
        (run_directory / TREES[PROGRAMS[model]]).read_bytes(),
        read(run_directory / "results.json"),
        rows(run_directory / "test_predictions.csv"),
        read(run_directory / "split.json"),
    )
