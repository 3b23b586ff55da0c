"""XGBoost's JSON, checked node by node: the library follows the indices of a file wherever they lead."""

import json

import numpy as np

from nfn_transformer.bounded_text import parse_json

_INDICES = ("left_children", "right_children", "split_indices", "default_left", "split_type", "parents")
_NUMBERS = ("base_weights", "loss_changes", "split_conditions", "sum_hessian")
_CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_NO_PARENT = 2**31 - 1


def checked_model(content: bytes) -> tuple[bytes, int]:
    """Return the JSON of a model, written anew from what was checked, and the numbers that its trees read.

    Raises:
        ValueError: the content is no model of boosted trees, or a node is not as it must be.
    """
    try:
        model = parse_json(content.decode())
        learner = model["learner"]
        booster = learner["gradient_booster"]
        trees = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
        if booster["name"] not in ("gbtree", "dart"):
            raise ValueError(f"it is a booster '{booster['name']}', expected gbtree or dart")
        width = int(_known(learner["learner_model_param"]["num_feature"], 10))
        _check_learner(model, learner)
        count = len(trees["trees"])
        _check_forest(trees, count)
        for number, tree in enumerate(trees["trees"]):
            _check_tree(tree, number, width)
        if booster["name"] == "dart":
            booster["weight_drop"] = _array(booster["weight_drop"], count, "weight_drop")
            if booster["gbtree"]["name"] != "gbtree":
                raise ValueError("its trees are no gbtree")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"it is no model of boosted trees ({type(error).__name__} {error})") from None
    return json.dumps(model).encode(), width


def _known(text: str, most: int) -> str:
    """Return the text of a whole number of at most so many digits."""
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= most):
        raise ValueError("a number of its parameters is not whole")
    return text


def _check_learner(model: dict, learner: dict) -> None:
    parameters = learner["learner_model_param"]
    expected = {"num_class": "0", "num_target": "1"}
    if any(parameters.get(key, value) != value for key, value in expected.items()):
        raise ValueError("it predicts more than one number")
    score = parse_json(parameters["base_score"])
    if len(_array(score if isinstance(score, list) else [score], 1, "base_score")) != 1:
        raise ValueError("it predicts more than one number")
    objective = learner["objective"]["name"]
    if objective != "reg:squarederror":
        raise ValueError(f"its objective is '{objective}', expected reg:squarederror")
    version = model["version"]
    if len(version) != 3 or not all(type(part) is int and 0 <= part < 1000 for part in version):
        raise ValueError("its version is not three numbers")
    unknown = set(learner) - {
        "attributes",
        "feature_names",
        "feature_types",
        "gradient_booster",
        "learner_model_param",
        "objective",
    }
    attributes = learner.get("attributes", {})
    if unknown or not all(isinstance(value, str) for value in attributes.values()):
        raise ValueError(f"it has unknown entries ({', '.join(sorted(unknown)) or 'attributes'})")
    if learner.get("feature_names") or learner.get("feature_types"):
        raise ValueError("it names its features")


def _check_forest(trees: dict, count: int) -> None:
    parameters = trees["gbtree_model_param"]
    if parameters.get("num_parallel_tree", "1") != "1" or parameters["num_trees"] != str(count):
        raise ValueError(f"it should have {parameters['num_trees']} trees, has {count}")
    if trees["tree_info"] != [0] * count or trees.get("iteration_indptr", [*range(count + 1)]) != [*range(count + 1)]:
        raise ValueError("its trees are not one a round")
    if any(value for value in trees.get("cats", {}).values()):
        raise ValueError("it has categories")


def _check_tree(tree: dict, number: int, width: int) -> None:
    """Check one tree, and replace its numbers by floats.

    Raises:
        ValueError: a node is not as it must be.
    """
    count = len(tree["left_children"])
    parameters = tree["tree_param"]
    sizes = [parameters["num_nodes"], parameters["num_feature"], parameters.get("size_leaf_vector", "1")]
    if not count or sizes != [str(count), str(width), "1"] or tree["id"] != number:
        raise ValueError(f"tree {number} has other sizes than it says")
    _known(parameters.get("num_deleted", "0"), 10)
    if any(tree.get(name) for name in _CATEGORIES):
        raise ValueError(f"tree {number} has categories")
    for name in _NUMBERS:
        tree[name] = _array(tree[name], count, f"'{name}' of tree {number}")
    nodes = np.arange(count)
    index = {name: _indices(tree[name], count, f"'{name}' of tree {number}") for name in _INDICES}
    left, right = index["left_children"], index["right_children"]
    inner = left != -1
    # Children that follow their node make no cycle.
    if ((right != -1) != inner).any() or (inner & ((left <= nodes) | (right <= nodes))).any():
        raise ValueError(f"tree {number} has children that are not after their node")
    if max(left.max(), right.max()) >= count or min(left.min(), right.min()) < -1:
        raise ValueError(f"tree {number} has children that it has not")
    if (inner & ((index["split_indices"] < 0) | (index["split_indices"] >= width))).any():
        raise ValueError(f"tree {number} reads numbers beyond the {width} that there are")
    if index["split_type"].any() or not np.isin(index["default_left"], (0, 1)).all():
        raise ValueError(f"tree {number} has splits of an unknown kind")
    parents = index["parents"]
    if ((parents != _NO_PARENT) & ((parents < 0) | (parents >= count))).any():
        raise ValueError(f"tree {number} has parents that it has not")


def _indices(values: list, count: int, name: str) -> np.ndarray:
    if type(values) is not list or len(values) != count or any(type(value) is not int for value in values):
        raise ValueError(f"{name} is not {count} whole numbers")
    if any(not -(2**31) <= value < 2**31 for value in values):
        raise ValueError(f"{name} has a number beyond those of 32 bits")
    return np.array(values, dtype=np.int64)


def _array(values: list, count: int, name: str) -> list[float]:
    is_sound = type(values) is list and len(values) == count and all(type(value) in (int, float) for value in values)
    numbers = np.array(values if is_sound else [np.inf], dtype=np.float64)
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise ValueError(f"{name} is not {count} finite numbers")
    return numbers.tolist()
