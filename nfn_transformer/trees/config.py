"""Registry of tree models with their libraries' parameters, the published ones, and the configuration of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nfn_transformer.configuration import setting
from nfn_transformer.trees.features import TREE_FEATURES

Parameters = dict[str, str | int | float | bool]

# The published settings say nothing on dart, and XGBoost's default, 0, never drops a tree: that would be gbtree
# under another name. This is LightGBM's default.
DART_RATE_DROP = 0.1


@dataclass(frozen=True)
class TreeConfig:
    """Configuration of a tree model.

    Raises:
        ValueError: another library, or other features.
    """

    library: str
    """Library of a model in TREE_MODELS."""
    parameters: Parameters = field(default_factory=dict)
    """Parameters by the library's own names."""
    features: str = setting("raw")
    """Features that the model reads, a key of TREE_FEATURES."""

    def __post_init__(self):
        libraries = dict.fromkeys(entry.library for entry in TREE_MODELS.values())
        for value, known in ((self.library, libraries), (self.features, TREE_FEATURES)):
            if value not in known:
                raise ValueError(f"'{value}', expected one of {', '.join(known)}")

    @property
    def model(self) -> str:
        """Name of the model among TREE_MODELS."""
        models = [name for name, entry in TREE_MODELS.items() if entry.library == self.library]
        return next((name for name in models if name in self.parameters.values()), models[0])

    @property
    def name(self) -> str:
        """Readable name, as in xgboost-gbtree or scikit-learn-extra_trees-statistics."""
        return "-".join([self.library, self.model, *([] if self.features == "raw" else [self.features])])


@dataclass(frozen=True)
class BoostingConfig:
    """Length of the training of a tree model."""

    rounds: int
    """Trees, at most."""
    early_stopping: int | None = None
    """Rounds after the best one by validation RMSE, at most."""

    def __post_init__(self):
        if self.rounds < 1 or (self.early_stopping is not None and self.early_stopping < 1):
            raise ValueError(f"a number is below 1 in {self}")


@dataclass(frozen=True)
class TreeEntry:
    """Declaration of a tree model; its name is among the parameters if its library has several models."""

    command: str
    """Command that trains it: xgb or gbm."""
    help: str
    """Text for --help."""
    library: str
    """Name of the library, as runs record it."""
    module: str
    """Module with `LIBRARY`, a `trees.libraries.TreeLibrary`; imported only by a run that needs it."""
    parameters: Parameters
    """Parameters of the library."""
    rounds: int
    """Trees, at most."""
    early_stopping: int | None = None
    """Rounds after the best one by validation RMSE, at most."""

    def config(self, features: str = "raw") -> TreeConfig:
        """Return the model's configuration."""
        return TreeConfig(self.library, dict(self.parameters), features)

    @property
    def boosting(self) -> BoostingConfig:
        """Length of the model's training."""
        return BoostingConfig(self.rounds, self.early_stopping)


_XGBOOST: Parameters = {
    "objective": "reg:squarederror",
    "learning_rate": 0.1,
    "max_depth": 10,
    "min_child_weight": 50,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "lambda": 0.01,
    "alpha": 0.02,
    "tree_method": "hist",
}
# XGBoost keeps the histograms of all nodes that it splits at once. One node at a time, and one more kept, makes the
# same trees in a twentieth of that memory.
_ONE_NODE_AT_A_TIME: Parameters = {"grow_policy": "lossguide", "max_cached_hist_node": 1}
_LIGHTGBM_SAMPLING: Parameters = {
    "feature_fraction": 0.8,
    "lambda_l1": 0.1,
    "lambda_l2": 0.2,
    "min_gain_to_split": 0.01,
    "max_bin": 255,
    # MiB of the leaves' histograms. One takes 74 at 18,000 numbers per network, and there are 256 leaves.
    "histogram_pool_size": 256,
}
_LIGHTGBM: Parameters = {
    "objective": "regression",
    "metric": "rmse",
    "learning_rate": 0.1,
    "num_leaves": 256,
    "max_depth": 10,
    "min_data_in_leaf": 50,
    "bagging_fraction": 0.8,
}

TREE_MODELS: Mapping[str, TreeEntry] = {
    "gbtree": TreeEntry(
        command="xgb",
        help="XGBoost's boosted trees",
        library="xgboost",
        module="nfn_transformer.trees.xgboost_trees",
        parameters={"booster": "gbtree", **_XGBOOST, **_ONE_NODE_AT_A_TIME},
        rounds=50,
    ),
    "dart": TreeEntry(
        command="xgb",
        help=f"the same, dropping {DART_RATE_DROP:.0%} of the trees in each round",
        library="xgboost",
        module="nfn_transformer.trees.xgboost_trees",
        parameters={"booster": "dart", **_XGBOOST, "rate_drop": DART_RATE_DROP, **_ONE_NODE_AT_A_TIME},
        rounds=50,
    ),
    "gbdt": TreeEntry(
        command="gbm",
        help="LightGBM's boosted trees",
        library="lightgbm",
        module="nfn_transformer.trees.lightgbm_trees",
        # Published so: without a frequency gbdt does not bag.
        parameters={"boosting": "gbdt", **_LIGHTGBM, "bagging_freq": 0, **_LIGHTGBM_SAMPLING},
        rounds=1000,
        early_stopping=50,
    ),
    "rf": TreeEntry(
        command="gbm",
        help="LightGBM's random forest",
        library="lightgbm",
        module="nfn_transformer.trees.lightgbm_trees",
        parameters={"boosting": "rf", **_LIGHTGBM, "bagging_freq": 1, **_LIGHTGBM_SAMPLING},
        rounds=1000,
        early_stopping=50,
    ),
    "extra_trees": TreeEntry(
        command="gbm",
        help="scikit-learn's forest of extremely randomised trees",
        library="scikit-learn",
        module="nfn_transformer.trees.extra_trees",
        parameters={"n_estimators": 500, "min_samples_leaf": 2},
        rounds=1,  # a forest is fitted as a whole
    ),
}
"""All tree models by name, with the published settings (arXiv 2410.04209, appendix) or, of others, usual ones."""
