"""Libraries of tree models behind one interface; each is imported only when a run needs it."""

from collections.abc import Callable
from dataclasses import dataclass

from nfn_transformer.trees.fitting import Observer, Settings, Sides, TreeModel


@dataclass(frozen=True)
class TreeLibrary:
    """Interface of a library of tree models."""

    file_name: str
    """Name of the file of a run's trees."""
    fit: Callable[[Settings, Sides, Observer], TreeModel]
    """Fit a model, as `trees.xgboost_trees.fit` does."""
    parse: Callable[[bytes], TreeModel]
    """Parse the content of that file; ValueError where it is damaged."""
    device_for: Callable[[str], tuple[str, str | None]]
    """Return the usable device in place of the given one, and the reason if it differs."""


def tree_library(name: str) -> TreeLibrary:
    """Return the library with a name of `trees.config.LIBRARIES`."""
    if name == "xgboost":
        from nfn_transformer.trees import xgboost_trees

        return TreeLibrary("best.xgboost.json", xgboost_trees.fit, xgboost_trees.XGBoostTrees, xgboost_trees.device_for)
    if name == "scikit-learn":
        from nfn_transformer.trees import extra_trees

        return TreeLibrary("best.trees.safetensors", extra_trees.fit, extra_trees.ExtraTrees, extra_trees.device_for)
    from nfn_transformer.trees import lightgbm_trees

    return TreeLibrary("best.lightgbm.txt", lightgbm_trees.fit, lightgbm_trees.LightGBMTrees, lightgbm_trees.device_for)
