"""Extremely randomised trees (Geurts et al. 2006) by scikit-learn, kept as plain arrays: no pickle is written or read.

Each tree is fitted to the whole training side and splits at random thresholds; the forest predicts their mean.
"""

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.tree import DecisionTreeRegressor
from tqdm import tqdm

from nfn_transformer.rms import root_mean_square
from nfn_transformer.trees.fitting import Observer, Settings, Sides
from nfn_transformer.trees.libraries import TreeLibrary

# Nodes of all trees one after another. A leaf has feature -1; children are counted within the whole. Its value is a
# number, or one for each class.
_KINDS = {"roots": "i8", "feature": "i4", "left": "i4", "right": "i4", "threshold": "f8", "value": "f8"}
_ROWS_AT_ONCE = 1024
# A random tree on a million networks has about a hundred levels, and a prediction takes a step for each.
_MOST_LEVELS = 1000
# Between two of these the bar moves, and Ctrl-C is heard.
_TREES_AT_ONCE = 10


class ExtraTrees:
    """Forest as the content of a safetensors file."""

    def __init__(self, content: bytes):
        """Parse a forest.

        Raises:
            ValueError: `content` is not the content of a forest's file.
        """
        self.content = content
        try:
            self._arrays = load(content)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from None
        _check(self._arrays)

    @property
    def trees(self) -> int:
        """Number of trees."""
        return len(self._arrays["roots"])

    def predict(self, inputs: ndarray) -> ndarray:
        """Predict the labels [n], or indicators [n, classes], float64, of n networks from their features [n, numbers].

        Raises:
            ValueError: the trees read more numbers than there are.
        """
        most = int(self._arrays["feature"].max(initial=-1))
        if inputs.shape[1] <= most:
            raise ValueError(f"networks of {inputs.shape[1]} numbers, the trees read number {most}")
        inputs = inputs.astype(np.float32)  # as they were when thresholds were drawn
        starts = range(0, len(inputs), _ROWS_AT_ONCE)
        return np.concatenate([self._predict(inputs[s : s + _ROWS_AT_ONCE]) for s in starts or [0]])

    def _predict(self, inputs: ndarray) -> ndarray:
        arrays = self._arrays
        node = np.tile(arrays["roots"], (len(inputs), 1))  # [n, trees]
        while (inner := arrays["feature"][node] >= 0).any():
            feature = np.where(inner, arrays["feature"][node], 0)
            is_left = np.take_along_axis(inputs, feature, axis=1) <= arrays["threshold"][node]
            node = np.where(inner, np.where(is_left, arrays["left"][node], arrays["right"][node]), node)
        return arrays["value"][node].mean(1)


def _check(arrays: dict[str, ndarray]) -> None:
    """Raise ValueError unless every node's children follow it within the same tree."""
    if arrays.keys() != _KINDS.keys():
        raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(sorted(_KINDS))}")
    roots, nodes = arrays["roots"], len(arrays["feature"])
    for name, kind in _KINDS.items():
        expected: tuple[int, ...] = (len(roots) if name == "roots" else nodes,)
        expected += arrays[name].shape[1:2] if name == "value" else ()
        if arrays[name].dtype != np.dtype(kind) or arrays[name].shape != expected:
            raise ValueError(f"'{name}' is {arrays[name].dtype} {arrays[name].shape}, expected {kind} {expected}")
    if not len(roots) or roots[0] != 0 or (roots[1:] <= roots[:-1]).any() or roots[-1] >= nodes:
        raise ValueError("'roots' are not where trees begin")
    own = np.arange(nodes)
    end = np.append(roots[1:], nodes)[np.searchsorted(roots, own, side="right") - 1]
    inner = arrays["feature"] >= 0
    for name in ("left", "right"):
        child = arrays[name]
        if (inner & ((child <= own) | (child >= end))).any():
            raise ValueError(f"'{name}' names nodes outside of their tree")
    level = roots
    for _ in range(_MOST_LEVELS):
        level = np.concatenate([arrays[name][level[inner[level]]] for name in ("left", "right")])
        if len(level) > nodes:
            raise ValueError("a node has two parents")
        if not len(level):
            break
    else:
        raise ValueError(f"a tree has more than {_MOST_LEVELS} levels")
    for name, text in (("value", "a leaf's value"), ("threshold", "a threshold")):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{text} is not finite")


def extra_trees_device(device: str) -> tuple[str, str | None]:
    """Return the device that scikit-learn trains on in place of `device`, and the reason if it differs."""
    return ("cpu", None) if device == "cpu" else ("cpu", "scikit-learn has no GPU")


def fit_extra_trees(settings: Settings, sides: Sides, observer: Observer) -> ExtraTrees:
    """Fit the whole forest in one round.

    A number of trees that is the best by validation would be so by chance.
    """
    model = grow_trees(settings, sides.train, sides.train_labels)
    loss = root_mean_square(model.predict(sides.train) - sides.train_labels)
    observer.finish_round(loss, model.predict(sides.validation))
    del sides.train, sides.validation
    return model


def grow_trees(settings: Settings, inputs: ndarray, targets: ndarray) -> ExtraTrees:
    """Return the forest that is fitted to features [n, numbers] and numbers [n] or [n, classes]."""
    trees = int(settings.config.parameters["n_estimators"])
    parameters = {**settings.config.parameters, "n_estimators": 0}
    forest = ExtraTreesRegressor(**parameters, warm_start=True, random_state=settings.seed, n_jobs=settings.threads)
    with tqdm(total=trees, unit=" trees", leave=False, disable=None) as bar:
        while forest.n_estimators < trees:
            added = min(_TREES_AT_ONCE, trees - forest.n_estimators)
            forest.n_estimators += added
            forest.fit(inputs, targets)
            bar.update(added)
    return ExtraTrees(save(_arrays(forest.estimators_)))


def _arrays(trees: list[DecisionTreeRegressor]) -> dict[str, ndarray]:
    counts = [tree.tree_.node_count for tree in trees]
    roots = np.cumsum([0, *counts[:-1]])

    def joined(name: str, of_node) -> ndarray:
        parts = [of_node(tree.tree_, root) for tree, root in zip(trees, roots, strict=True)]
        return np.concatenate(parts).astype(_KINDS[name])

    return {
        "roots": roots.astype(_KINDS["roots"]),
        "feature": joined("feature", lambda tree, root: np.where(tree.children_left < 0, -1, tree.feature)),
        "left": joined("left", lambda tree, root: np.where(tree.children_left < 0, 0, tree.children_left + root)),
        "right": joined("right", lambda tree, root: np.where(tree.children_left < 0, 0, tree.children_right + root)),
        "threshold": joined("threshold", lambda tree, root: np.where(tree.children_left < 0, 0, tree.threshold)),
        "value": joined(
            "value", lambda tree, root: tree.value[:, :, 0].squeeze(1) if tree.n_outputs == 1 else tree.value[:, :, 0]
        ),
    }


LIBRARY = TreeLibrary("best.trees.safetensors", fit_extra_trees, ExtraTrees, extra_trees_device)
