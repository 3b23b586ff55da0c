"""Registry of tree models with their libraries' parameters, the published ones, and the configuration of a model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nfn_transformer.configuration import COUNT, Setting, setting
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
        return "-".join([self.kind, *([] if self.features == "raw" else [self.features])])

    @property
    def kind(self) -> str:
        """Library and model, as in xgboost-gbtree; one name where both are the same."""
        return "-".join(dict.fromkeys((self.library, self.model)))


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
    """Parameters of the library; those in TREE_SETTINGS are defaults of flags."""
    rounds: int
    """Trees, at most."""
    early_stopping: int | None = None
    """Rounds after the best one by validation RMSE, at most."""

    @property
    def defaults(self) -> Parameters:
        """Defaults of the settings in TREE_SETTINGS that the model reads, by name."""
        settings = {name: value for name, value in self.parameters.items() if name in TREE_SETTINGS}
        return settings | (
            {} if self.rounds == 1 else {"rounds": self.rounds, "early_stopping": self.early_stopping or 0}
        )

    def config(self, features: str = "raw", settings: Mapping[str, Any] | None = None) -> TreeConfig:
        """Return the model's configuration, with settings in place of its own parameters.

        Raises:
            ValueError: the model does not read a setting, or a value is of another type or out of its range.
        """
        given, defaults = dict(settings or {}), self.defaults
        for name, value in given.items():
            if name not in defaults:
                readers = ", ".join(model for model, entry in TREE_MODELS.items() if name in entry.defaults)
                raise ValueError(f"--{name} {value}: not read by this model; requires --model {readers}")
            rules, kind = TREE_SETTINGS[name], TREE_SETTING_KINDS[name]
            if not isinstance(value, int if kind is int else int | float) or isinstance(value, bool):
                raise ValueError(f"--{name} {value!r}: expected a {'whole ' if kind is int else ''}number")
            low, high = rules.low or 0, math.inf if rules.high is None else rules.high
            if not (low < value if rules.above else low <= value) or value > high:
                raise ValueError(f"--{name} {value}: is out of its range")
        if self.parameters.get("boosting") == "rf" and not (
            given.get("bagging_freq", 1) and given.get("bagging_fraction", 0.8) < 1
        ):
            raise ValueError("--model rf requires --bagging_freq above 0 and --bagging_fraction below 1")
        # A number that equals the default stays as it is written there: 50.0 would be another cell's key than 50.
        kept = {
            name: value if given.get(name, value) == value else given[name] for name, value in self.parameters.items()
        }
        return TreeConfig(self.library, kept, features)

    @property
    def boosting(self) -> BoostingConfig:
        """Length of the model's training."""
        return BoostingConfig(self.rounds, self.early_stopping)

    def boosting_by(self, settings: Mapping[str, Any]) -> BoostingConfig:
        """Return the length of the model's training, with settings in place of its own."""
        patience = settings.get("early_stopping", self.early_stopping)
        return BoostingConfig(settings.get("rounds", self.rounds), patience or None)


TREE_SETTINGS: Mapping[str, Setting] = {
    "rounds": Setting("trees at most, one a round", **COUNT),
    "early_stopping": Setting("rounds after the best one by validation error, at most; 0: no limit", low=0),
    "learning_rate": Setting("share of each new tree that is added", low=0, high=1, above=True),
    "max_depth": Setting("depth of a tree, at most; 0: no limit", low=0, high=1000),
    "num_leaves": Setting("leaves of a tree, at most", low=2, high=131072),
    "min_child_weight": Setting("networks in a leaf, at least", low=0, high=1e9),
    "min_data_in_leaf": Setting("networks in a leaf, at least", low=0, high=2**31 - 1),
    "subsample": Setting("share of the networks that a tree is fitted to", low=0, high=1, above=True),
    "colsample_bytree": Setting("share of the numbers that a tree reads", low=0, high=1, above=True),
    "bagging_fraction": Setting(
        "share of the networks that a tree is fitted to, unless --bagging_freq is 0", low=0, high=1, above=True
    ),
    "bagging_freq": Setting("rounds between two draws of these networks; 0: all networks", low=0, high=2**31 - 1),
    "feature_fraction": Setting("share of the numbers that a tree reads", low=0, high=1, above=True),
    "lambda": Setting("L2 penalty of leaves", low=0, high=1e9),
    "alpha": Setting("L1 penalty of leaves", low=0, high=1e9),
    "lambda_l1": Setting("L1 penalty of leaves", low=0, high=1e9),
    "lambda_l2": Setting("L2 penalty of leaves", low=0, high=1e9),
    "min_gain_to_split": Setting("gain of a split, at least", low=0, high=1e9),
    "max_bin": Setting("bins of a number, at most", low=2, high=65535),
    "rate_drop": Setting("share of the trees that dart drops in each round", low=0, high=1),
    "n_estimators": Setting("trees", low=1, high=100_000),
    "min_samples_leaf": Setting("networks in a leaf, at least", **COUNT),
}
"""Settings of tree models that are flags, with their bounds; a model reads those among its parameters."""

_WHOLE = {
    *("rounds", "early_stopping", "max_depth", "num_leaves", "min_data_in_leaf", "bagging_freq", "max_bin"),
    *("n_estimators", "min_samples_leaf"),
}

TREE_SETTING_KINDS: Mapping[str, type] = {name: int if name in _WHOLE else float for name in TREE_SETTINGS}
"""Types of these settings."""

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
    "blend": TreeEntry(
        command="gbm",
        help="mean of such a forest and of Gaussian processes",
        library="blend",
        module="nfn_transformer.trees.blend",
        parameters={"n_estimators": 500, "min_samples_leaf": 2, "max_features": 1 / 3},
        rounds=1,
    ),
}
"""All tree models by name, with the published settings (arXiv 2410.04209, appendix) or, of others, usual ones."""
