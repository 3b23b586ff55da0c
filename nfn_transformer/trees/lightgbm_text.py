"""LightGBM's text, checked line by line: the library follows the indices of a file wherever they lead."""

import re

import numpy as np

_HEADER = ("num_class", "num_tree_per_iteration", "label_index", "max_feature_idx")
_WHOLE = ("split_feature", "decision_type", "left_child", "right_child")
_NODES = (*_WHOLE, "split_gain", "threshold", "internal_value", "internal_weight", "internal_count")
_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_SCALARS = ("num_leaves", "num_cat", "is_linear", "shrinkage")
_NUMBER = re.compile(r"-?\d{1,25}(\.\d{1,25})?(e[+-]?\d{1,3})?")
_DIGITS = re.compile(r"-?\d{1,10}")  # LightGBM reads 10e-1 as 10 where it expects a whole number
_NAME, _INFO = re.compile(r"\w{1,30}"), re.compile(r"none|\[[-+.e\d]{1,40}:[-+.e\d]{1,40}\]")
# The flag of a default on the left, and the treatments of a missing value: none, zero, nan. Odd ones are categories.
_DECISIONS = (0, 2, 4, 6, 8, 10)
_END = "end of trees"


def checked_text(content: bytes) -> tuple[str, int, int]:
    """Return the text up to the end of the trees, without their sizes, their count, and the numbers that they read.

    By the sizes LightGBM would read trees side by side, where one that is damaged ends the whole process.

    Raises:
        ValueError: the content is no model of trees, or a node is not as it must be.
    """
    text = content.decode("ascii")
    head, *trees = text.partition(f"\n{_END}\n")[0].split("\nTree=")
    if f"\n{_END}\n" not in text or not text.endswith("\npandas_categorical:null\n"):
        raise ValueError("its beginning or its end is missing")
    header = _lines(head)
    try:
        width = int(header["max_feature_idx"] if header["max_feature_idx"].isdecimal() else "x") + 1
        _check_header(header, width)
        sizes = header.pop("tree_sizes").split()
        if len(sizes) != len(trees):
            raise ValueError(f"it has {len(trees)} trees, expected {len(sizes)}")
        for number, tree in enumerate(trees):
            first, _, lines = tree.partition("\n")
            if first != str(number):
                raise ValueError(f"tree {number} is called {first[:20]}")
            _check_tree(_lines(lines), f"tree {number}", width)
    except KeyError as error:
        raise ValueError(f"it has no line {error}") from None
    except (AttributeError, TypeError):
        raise ValueError("it has a line without its value") from None
    start = [name if value is None else f"{name}={value}" for name, value in header.items()]
    return "\n".join([*start, "", *(f"Tree={tree}" for tree in trees), _END, ""]), len(trees), width


def _lines(text: str) -> dict[str, str]:
    """Return name -> value of lines NAME=VALUE; a line of a name alone has no value.

    Raises:
        ValueError: a name is there twice.
    """
    parts = [line.partition("=") for line in text.split("\n") if line]
    values = {name: value if sign else None for name, sign, value in parts}
    if len(values) < len(parts):
        raise ValueError("it has a line twice")
    return values  # type: ignore[return-value]


def _check_header(header: dict[str, str], width: int) -> None:
    fixed = {"num_class": "1", "num_tree_per_iteration": "1", "label_index": "0", "objective": "regression"}
    if any(header[name] != value for name, value in fixed.items()) or not re.fullmatch(r"v\d", header["version"]):
        raise ValueError("it is no regression of one number")
    known = {"tree", "version", *_HEADER, "objective", "average_output", "feature_names", "feature_infos", "tree_sizes"}
    if unknown := header.keys() - known:
        raise ValueError(f"it has an unknown line '{min(unknown)[:40]}'")
    if header["tree"] is not None or header.get("average_output") is not None:
        raise ValueError("its first line is another")
    names, infos = header["feature_names"].split(" "), header["feature_infos"].split(" ")
    if len(names) != width or not all(map(_NAME.fullmatch, names)):
        raise ValueError(f"it does not have {width} names of features")
    if len(infos) != width or not all(map(_INFO.fullmatch, infos)):
        raise ValueError(f"it does not have {width} ranges of features")


def _check_tree(tree: dict[str, str], name: str, width: int) -> None:
    known = {*_NODES, *_LEAVES, *_SCALARS}
    if unknown := tree.keys() - known:
        raise ValueError(f"{name} has an unknown line '{min(unknown)[:40]}'")
    count = tree["num_leaves"]
    if not re.fullmatch(r"[1-9]\d{0,6}", count) or tree["num_cat"] != "0" or tree.get("is_linear", "0") != "0":
        raise ValueError(f"{name} has another kind of leaves")
    leaves = int(count)
    _numbers(tree["shrinkage"], 1, f"{name}: shrinkage")
    for key in _LEAVES:
        if key == "leaf_value" or tree.get(key):
            _numbers(tree[key], leaves, f"{name}: {key}")
    arrays = {key: _numbers(tree.get(key, ""), leaves - 1, f"{name}: {key}", key in _WHOLE) for key in _NODES}
    nodes, reads = np.arange(leaves - 1), arrays["split_feature"]
    for key in ("left_child", "right_child"):
        child = arrays[key]
        # Children that follow their node make no cycle; the others are leaves.
        if (((child >= 0) & (child <= nodes)) | (child >= leaves - 1) | (child < -leaves)).any():
            raise ValueError(f"{name}: {key} names nodes that are not after their own")
    if ((reads < 0) | (reads >= width)).any():
        raise ValueError(f"{name} reads numbers beyond the {width} that there are")
    if not np.isin(arrays["decision_type"], _DECISIONS).all():
        raise ValueError(f"{name} has splits of an unknown kind")


def _numbers(text: str, count: int, name: str, whole: bool = False) -> np.ndarray:
    """Return the numbers of a line.

    Raises:
        ValueError: they are not so many finite numbers.
    """
    parts = text.split(" ") if text else []
    if len(parts) != count or not all(map((_DIGITS if whole else _NUMBER).fullmatch, parts)):
        raise ValueError(f"{name} is not {count} {'whole ' if whole else ''}numbers")
    numbers = np.array(parts, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} is not {count} finite numbers")
    return numbers
