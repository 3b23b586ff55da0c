"""Libraries of tree models behind one interface; each is imported only when a run needs it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from nfn_transformer.extras import extra
from nfn_transformer.trees.config import TREE_MODELS
from nfn_transformer.trees.fitting import Observer, Settings, Sides, TreeModel


@dataclass(frozen=True)
class TreeLibrary:
    """Interface of a library of tree models."""

    file_name: str
    """Name of the file of a run's trees."""
    fit: Callable[[Settings, Sides, Observer], TreeModel]
    """Fit a model, as `trees.xgboost_trees.fit_xgboost` does."""
    parse: Callable[[bytes], TreeModel]
    """Parse the content of that file; ValueError where it is damaged."""
    device_for: Callable[[str], tuple[str, str | None]]
    """Return the usable device in place of the given one, and the reason if it differs."""


def tree_library(name: str) -> TreeLibrary:
    """Return the library that a TreeConfig names."""
    entry = next(entry for entry in TREE_MODELS.values() if entry.library == name)
    with extra("trees", f"a model of {name}"):
        return importlib.import_module(entry.module).LIBRARY
