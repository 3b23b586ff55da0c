"""Settings of tree models as flags: defaults, what is refused, and that they reach the library."""

import json

import pytest

from nfn_transformer import gbm, xgb
from nfn_transformer.errors import UserError
from nfn_transformer.training.config import RunConfig
from nfn_transformer.trees.config import TREE_MODELS, BoostingConfig


def flags_of(command, *words: str) -> RunConfig:
    return command.run_config(command.build_parser().parse_args(words))


def test_settings_are_flags_whose_defaults_are_the_published_ones():
    for command, models in ((xgb.COMMAND, ("gbtree", "dart")), (gbm.COMMAND, ("gbdt", "rf", "extra_trees"))):
        for model in models:
            entry = TREE_MODELS[model]
            words = [word for name, value in entry.defaults.items() for word in (f"--{name}", str(value))]
            plain, given = flags_of(command, "--model", model), flags_of(command, "--model", model, *words)
            assert plain.predictor == entry.config()
            assert plain.training == entry.boosting
            assert json.dumps(given.key_values()) == json.dumps(plain.key_values()), model  # one cell


def test_changed_settings_are_recorded_and_make_another_cell():
    words = ("--learning_rate", "0.3", "--max_depth", "4", "--min_child_weight", "5", "--rounds", "7")
    config = flags_of(xgb.COMMAND, *words, "--early_stopping", "3")
    assert config.predictor.parameters == TREE_MODELS["gbtree"].parameters | {
        "learning_rate": 0.3, "max_depth": 4, "min_child_weight": 5.0,
    }  # fmt: skip
    assert config.training == BoostingConfig(7, 3)
    assert config.key_values() != flags_of(xgb.COMMAND).key_values()
    assert flags_of(gbm.COMMAND, "--model", "gbdt", "--early_stopping", "0").training == BoostingConfig(1000, None)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (gbm.COMMAND, "--model extra_trees --num_leaves 5", "--num_leaves 5: .*; requires --model gbdt, rf"),
        (gbm.COMMAND, "--model gbdt --n_estimators 5", "--n_estimators 5: .*; requires --model extra_trees"),
        (xgb.COMMAND, "--rate_drop 0.1", "--rate_drop 0.1: not read by this model; requires --model dart"),
        (gbm.COMMAND, "--model rf --bagging_freq 0", "--model rf requires --bagging_freq above 0"),
    ],
)  # fmt: skip
def test_a_setting_that_the_model_does_not_read_is_refused(command, words, message):
    with pytest.raises(UserError, match=f"^{message}"):
        flags_of(command, *words.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_depth": True}, "--max_depth True: expected a whole number"),
        ({"max_depth": 2.5}, "--max_depth 2.5: expected a whole number"),
        ({"subsample": 2}, "--subsample 2: is out of its range"),
        ({"subsample": 0.0}, "--subsample 0.0: is out of its range"),
    ],
)
def test_settings_from_python_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        TREE_MODELS["gbtree"].config(settings=settings)


def test_settings_reach_the_library(small_zoo, tmp_path):
    words = ["--dataset", "digits", "--data_path", str(small_zoo), "--features", "statistics", "--seed", "1"]
    settings = ["--max_depth", "1", "--min_child_weight", "1", "--rounds", "3", "--out_dir", str(tmp_path / "run")]
    assert xgb.main([*words, *settings]) == 0
    learner = json.loads((tmp_path / "run/best.xgboost.json").read_text())["learner"]
    sizes = [len(tree["left_children"]) for tree in learner["gradient_booster"]["model"]["trees"]]
    assert len(sizes) == 3
    assert set(sizes) == {3}  # a root and two leaves
