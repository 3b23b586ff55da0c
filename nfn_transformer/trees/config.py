"""Which tree model is trained, with which of its library's parameters; the published ones by default."""

from dataclasses import dataclass, field

from nfn_transformer.configuration import setting

FEATURES = {
    "raw": "flattened weights",
    "statistics": "seven statistics of each weight matrix and bias",
    "invariants": "invariants of whole networks, which the complete encoder reads",
    "hyperparameters": "the metadata's hyperparameters, and no weights",
}
"""By name, what tree models read (`trees.features`)."""

XGBOOST_MODELS = ("gbtree", "dart")
LIGHTGBM_MODELS = ("gbdt", "rf")
EXTRA_TREES = "extra_trees"
"""The model of scikit-learn."""

LIBRARIES = ("xgboost", "lightgbm", "scikit-learn")

# The published settings say nothing on dart, and XGBoost's default, 0, never drops a tree: that would be gbtree
# under another name. This is LightGBM's default.
DART_RATE_DROP = 0.1

# What is kept of the leaves' histograms, in MiB. One takes 74 at 18,000 numbers per network, and there are 256 leaves.
HISTOGRAM_POOL = 256
# XGBoost keeps those of all nodes that it splits at once. One node at a time, and one more kept, makes the same trees
# in a twentieth of that memory.
_ONE_NODE_AT_A_TIME = {"grow_policy": "lossguide", "max_cached_hist_node": 1}


@dataclass(frozen=True)
class TreeConfig:
    """A tree model: `library` is one of LIBRARIES, `parameters` are the library's own, by its names; `features`, what
    it reads, are one of FEATURES.

    Raises:
        ValueError: another library, or other features.
    """

    library: str
    parameters: dict[str, str | int | float | bool] = field(default_factory=dict)
    features: str = setting("raw")

    def __post_init__(self):
        for value, known in ((self.library, LIBRARIES), (self.features, FEATURES)):
            if value not in known:
                raise ValueError(f"'{value}', expected one of {', '.join(known)}")

    @property
    def model(self) -> str:
        """Which of its library's models it is, as --model names it."""
        return self.parameters.get("booster") or self.parameters.get("boosting") or EXTRA_TREES

    @property
    def name(self) -> str:
        """A readable name, as in xgboost-gbtree or scikit-learn-extra_trees-statistics."""
        return "-".join([self.library, self.model, *([] if self.features == "raw" else [self.features])])


@dataclass(frozen=True)
class BoostingConfig:
    """How long a tree model is trained: at most `rounds` trees; with `early_stopping` no longer than so many rounds
    after the best one by validation RMSE."""

    rounds: int
    early_stopping: int | None = None

    @property
    def length(self) -> int:
        """How many rounds there will be at most."""
        return self.rounds

    def __post_init__(self):
        if self.rounds < 1 or (self.early_stopping is not None and self.early_stopping < 1):
            raise ValueError(f"a number is below 1 in {self}")


XGBOOST_BOOSTING = BoostingConfig(rounds=50)
# A forest is fitted as a whole: it has one round.
EXTRA_TREES_BOOSTING = BoostingConfig(rounds=1)
LIGHTGBM_BOOSTING = BoostingConfig(rounds=1000, early_stopping=50)


def xgboost_config(model: str, features: str = "raw") -> TreeConfig:
    """XGBoost with the published settings (arXiv 2410.04209, appendix); `model` is one of XGBOOST_MODELS."""
    parameters = {
        "booster": model,
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
    dart = {"rate_drop": DART_RATE_DROP} if model == "dart" else {}
    return TreeConfig("xgboost", {**parameters, **dart, **_ONE_NODE_AT_A_TIME}, features)


def lightgbm_config(model: str, features: str = "raw") -> TreeConfig:
    """LightGBM with the published settings (arXiv 2410.04209, appendix); `model` is one of LIGHTGBM_MODELS."""
    parameters = {
        "boosting": model,
        "objective": "regression",
        "metric": "rmse",
        "learning_rate": 0.1,
        "num_leaves": 256,
        "max_depth": 10,
        "min_data_in_leaf": 50,
        "bagging_fraction": 0.8,
        # Published so: without a frequency gbdt does not bag. A forest cannot do without.
        "bagging_freq": 1 if model == "rf" else 0,
        "feature_fraction": 0.8,
        "lambda_l1": 0.1,
        "lambda_l2": 0.2,
        "min_gain_to_split": 0.01,
        "max_bin": 255,
    }
    return TreeConfig("lightgbm", {**parameters, "histogram_pool_size": HISTOGRAM_POOL}, features)


def extra_trees_config(features: str = "raw") -> TreeConfig:
    """500 extremely randomised trees with leaves of at least two networks, else with scikit-learn's defaults."""
    return TreeConfig("scikit-learn", {"n_estimators": 500, "min_samples_leaf": 2}, features)
