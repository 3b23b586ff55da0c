"""Damaged and forged files of tree models are errors: the libraries never see a node that leads elsewhere."""

import json
import re

import lightgbm
import numpy as np
import pytest
import xgboost
from safetensors.numpy import load, save
from sklearn.ensemble import ExtraTreesRegressor

from nfn_transformer.trees import extra_trees
from nfn_transformer.trees.extra_trees import ExtraTrees
from nfn_transformer.trees.lightgbm_trees import LightGBMTrees
from nfn_transformer.trees.xgboost_trees import XGBoostTrees

DRAW = np.random.default_rng(27)
INPUTS, LABELS = DRAW.random((200, 5), np.float32), DRAW.random(200, np.float32)


def xgboost_file(booster: str, **parameters) -> tuple[bytes, np.ndarray]:
    options = {"booster": booster, "objective": "reg:squarederror", "max_depth": 3, **parameters}
    model = xgboost.train(options, xgboost.QuantileDMatrix(INPUTS, LABELS), 3)
    return bytes(model.save_raw("json")), model.inplace_predict(INPUTS)


def lightgbm_file(**parameters) -> tuple[bytes, np.ndarray]:
    options = {"objective": "regression", "num_leaves": 4, "verbosity": -1, "num_threads": 1, **parameters}
    model = lightgbm.train(options, lightgbm.Dataset(INPUTS, LABELS), 3)
    return model.model_to_string().encode(), model.predict(INPUTS)


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (XGBoostTrees, lambda: xgboost_file("gbtree")),
        (XGBoostTrees, lambda: xgboost_file("gbtree", gamma=0.1)),
        (XGBoostTrees, lambda: xgboost_file("dart", rate_drop=0.5)),
        (LightGBMTrees, lightgbm_file),
        (LightGBMTrees, lambda: lightgbm_file(boosting="rf", bagging_freq=1, bagging_fraction=0.7)),
        (LightGBMTrees, lambda: lightgbm_file(min_data_in_leaf=150)),
    ],
    ids=["gbtree", "pruned", "dart", "gbdt", "rf", "no split"],
)
def test_sound_trees_predict_what_they_did_to_the_last_bit(kind, made):
    content, expected = made()
    model = kind(content)
    assert model.content == content
    assert (model.predict(INPUTS) == expected).all()
    with pytest.raises(ValueError, match="networks of 4 numbers, the trees read 5"):
        model.predict(INPUTS[:, :4])


def tree(model: dict) -> dict:
    return model["learner"]["gradient_booster"]["model"]["trees"][1]


XGBOOST = {
    "cycle": (lambda m: tree(m)["left_children"].__setitem__(2, 0), "children that are not after their node"),
    "itself": (lambda m: tree(m)["right_children"].__setitem__(0, 0), "children that are not after their node"),
    "beyond": (lambda m: tree(m)["right_children"].__setitem__(0, 10**6), "children that it has not"),
    "one child": (lambda m: tree(m)["left_children"].__setitem__(0, -1), "children that are not after their node"),
    "feature": (lambda m: tree(m)["split_indices"].__setitem__(0, 5), "reads numbers beyond the 5 that there are"),
    "negative": (lambda m: tree(m)["split_indices"].__setitem__(0, -1), "reads numbers beyond the 5"),
    "nan": (lambda m: tree(m)["split_conditions"].__setitem__(0, float("nan")), "NaN, expected a finite number"),
    "category": (lambda m: tree(m)["split_type"].__setitem__(0, 1), "splits of an unknown kind"),
    "categories": (lambda m: tree(m).update(categories=[1]), "has categories"),
    "short": (lambda m: tree(m)["sum_hessian"].pop(), "'sum_hessian' of tree 1 is not"),
    "bool": (lambda m: tree(m)["left_children"].__setitem__(0, True), "whole numbers"),
    "vector": (lambda m: tree(m)["tree_param"].update(size_leaf_vector="9"), "other sizes than it says"),
    "linear": (lambda m: m["learner"].update(gradient_booster={"name": "gblinear", "model": {}}), "'gblinear'"),
    "classes": (lambda m: m["learner"]["learner_model_param"].update(num_class="9"), "more than one number"),
    "width": (lambda m: m["learner"]["learner_model_param"].update(num_feature="x"), "is not whole"),
    "rounds": (lambda m: m["learner"]["gradient_booster"]["model"].update(iteration_indptr=[9]), "one a round"),
    "objective": (lambda m: m["learner"]["objective"].update(name="rank:map"), "expected reg:squarederror"),
    "64 bits": (lambda m: tree(m)["split_indices"].__setitem__(0, 10**19), "a number beyond those of 32 bits"),
    "deep": (lambda m: m["learner"]["learner_model_param"].update(base_score="[" * 10**5), "more than 32 levels"),
    "nothing": (lambda m: m.clear(), "no model of boosted trees"),
}


@pytest.mark.parametrize("kind", XGBOOST)
def test_forged_trees_of_xgboost_are_an_error(kind):
    forge, message = XGBOOST[kind]
    model = json.loads(xgboost_file("gbtree")[0])
    forge(model)
    with pytest.raises(ValueError, match=re.escape(message)):
        XGBoostTrees(json.dumps(model).encode())


LIGHTGBM = {
    "cycle": ("left_child=", "left_child=0", "left_child names nodes that are not after their own"),
    "leaf": ("right_child=", "right_child=-9", "right_child names nodes"),
    "beyond": ("right_child=", "right_child=99", "right_child names nodes"),
    "feature": ("split_feature=", "split_feature=5", "reads numbers beyond the 5 that there are"),
    "nan": ("threshold=", "threshold=nan", "threshold is not 3 numbers"),
    "infinite": ("leaf_value=", "leaf_value=1e999", "leaf_value is not 4 finite numbers"),
    "category": ("decision_type=", "decision_type=1", "splits of an unknown kind"),
    "leaves": ("num_leaves=", "num_leaves=900", "is not 900 numbers"),
    "no leaves": ("num_leaves=", "num_leaves=0", "another kind of leaves"),
    "linear": ("is_linear=", "is_linear=1", "another kind of leaves"),
    "classes": ("num_class=", "num_class=0", "no regression of one number"),
    "width": ("max_feature_idx=", "max_feature_idx=99999", "names of features"),
    "exponent": ("left_child=", "left_child=10e-1", "left_child is not 3 whole numbers"),
    "no value": ("max_feature_idx=", "max_feature_idx", "a line without its value"),
    "unknown": ("shrinkage=", "leaf_coeff=1\nshrinkage=1", "unknown line 'leaf_coeff'"),
}


@pytest.mark.parametrize("kind", LIGHTGBM)
def test_forged_trees_of_lightgbm_are_an_error(kind):
    name, forged, message = LIGHTGBM[kind]
    text = lightgbm_file()[0].decode()
    start = text.index(f"\n{name}") + 1
    end = min(place for place in (text.find(" ", start), text.find("\n", start)) if place > 0)
    with pytest.raises(ValueError, match=re.escape(message)):
        LightGBMTrees((text[:start] + forged + text[end:]).encode())


@pytest.mark.parametrize(
    ("name", "node", "value", "message"),
    [
        ("left", 0, 0, "'left' names nodes outside of their tree"),
        ("right", 0, 10**6, "'right' names nodes outside of their tree"),
        ("threshold", 0, np.nan, "a threshold is not finite"),
        ("value", 0, float("nan"), "a leaf's value is not finite"),
        ("roots", 0, 1, "'roots' are not where trees begin"),
    ],
)
def test_forged_extra_trees_are_an_error(name, node, value, message):
    forest = ExtraTreesRegressor(3, max_depth=3, random_state=1).fit(INPUTS, LABELS)
    arrays = extra_trees._arrays(forest.estimators_)
    assert (ExtraTrees(save(arrays)).predict(INPUTS) == forest.predict(INPUTS)).all()
    arrays = {key: array.copy() for key, array in load(save(arrays)).items()}
    arrays[name][node] = value
    with pytest.raises(ValueError, match=message):
        ExtraTrees(save(arrays))


def test_a_chain_of_nodes_is_no_tree():
    nodes = 20_001
    own, inner = np.arange(nodes), np.arange(nodes) < nodes - 2
    arrays = {"roots": np.zeros(1, "i8"), "feature": np.where(inner, 0, -1).astype("i4")}
    arrays |= {"left": np.where(inner, own + 1, 0).astype("i4"), "right": np.full(nodes, nodes - 1, "i4")}
    arrays |= {"threshold": np.zeros(nodes), "value": np.zeros(nodes)}
    with pytest.raises(ValueError, match="more than 1000 levels"):
        ExtraTrees(save(arrays))
