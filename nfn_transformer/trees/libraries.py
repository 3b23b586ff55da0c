"""The libraries of tree models behind one interface; each is imported only when a run needs it."""

from collections.abc import Callable
from dataclasses import dataclass

from nfn_transformer.trees.fitting import Observer, Settings, Sides, TreeModel


@dataclass(frozen=True)
class TreeLibrary:
    """What a library does.

    Fields: file_name, of a run's trees; fit, see `trees.xgboost_trees.fit`; parse, a model from the content of
    that file, with ValueError where it is none; device_for, the device that it can use in place of the wanted one, and
    why, where it is another.
    """

    file_name: str
    fit: Callable[[Settings, Sides, Observer], TreeModel]
    parse: Callable[[bytes], TreeModel]
    device_for: Callable[[str], tuple[str, str | None]]


def tree_library(name: str) -> TreeLibrary:
    """The library of a TreeConfig, one of `tree_config.LIBRARIES`."""
    if name == "xgboost":
        from nfn_transformer.trees import xgboost_trees

        return TreeLibrary("best.xgboost.json", xgboost_trees.fit, xgboost_trees.XGBoostTrees, xgboost_trees.device_for)
    if name == "scikit-learn":
        from nfn_transformer.trees import extra_trees

        return TreeLibrary("best.trees.safetensors", extra_trees.fit, extra_trees.ExtraTrees, extra_trees.device_for)
    from nfn_transformer.trees import lightgbm_trees

    return TreeLibrary("best.lightgbm.txt", lightgbm_trees.fit, lightgbm_trees.LightGBMTrees, lightgbm_trees.device_for)
