"""The exact configuration of a run: what is written into its directory and read back from it."""

import platform
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import torch

from nfn_transformer.errors import RunError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training.optimizer import OPTIMIZERS
from nfn_transformer.trees.config import BoostingConfig, TreeConfig
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

NETWORK = "transformer_nfn"
"""The --model whose predictor is a neural network; all others are tree models."""

# Fields that runs of earlier versions did not write; their defaults are what those versions did.
_LATER = {
    "DataConfig": ("all_sizes", "where", "train_networks", "augment", "augment_factor", "augment_scale"),
    "TrainingConfig": ("compile", "cuda_graphs", "amp", "early_stopping"),
    "TreeConfig": ("features",),
    "ModelConfig": ("dropout", "standardize", "log_magnitudes", "ensemble", "graph_layers", "graph_dim", "graph_conv"),
}


@dataclass(frozen=True)
class DataConfig:
    """Which checkpoints are read, which of them are kept (see `zoo.reading.read_zoo`), whether those of all sizes (see
    `zoo.several_sizes.read_all_sizes`), how many of the training side
    are used (None: all), and whether each side of the split is enlarged by transformed copies (see
    `zoo.augmentation.enlarge`)."""

    dataset: str
    data_path: str
    ckpt_epoch: str = "75"
    cut_off: float = 0.0
    n_heads: int | None = None
    allow_faulty: bool = False
    where: str = ""
    all_sizes: bool = False
    train_networks: int | None = None
    augment: bool = False
    augment_factor: int = 2
    augment_scale: float = 1.0


@dataclass(frozen=True)
class TrainingConfig:
    """How a predictor is trained; the defaults are the published ones (arXiv 2410.04209, appendix).

    `compile` and `cuda_graphs` change the numbers by rounding alone, `amp` trains in bfloat16. With `early_stopping` it
    ends as soon as so many epochs in a row have not been the best one by validation tau.
    """

    epochs: int = 100
    warmup_epochs: int = 10
    batch_size: int = 16
    optimizer: str = "adam"
    lr: float = 1e-3
    wd: float = 0.0
    compile: bool = False
    cuda_graphs: bool = False
    amp: bool = False
    early_stopping: int | None = None

    @property
    def length(self) -> int:
        """How many epochs there will be at most."""
        return self.epochs

    def __post_init__(self):
        if min(self.epochs, self.batch_size) < 1 or self.warmup_epochs < 0 or self.lr <= 0 or self.wd < 0:
            raise ValueError(f"a number is out of its range in {self}")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise ValueError(f"early_stopping is below 1 in {self}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer '{self.optimizer}', expected one of {', '.join(OPTIMIZERS)}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's numbers, and the versions and device that it ran with.

    `predictor` and `training` are a ModelConfig and a TrainingConfig where `model` is NETWORK, else a TreeConfig
    and a BoostingConfig.
    """

    seed: int
    model: str
    data: DataConfig
    predictor: ModelConfig | TreeConfig
    training: TrainingConfig | BoostingConfig
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain values, to be written as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "RunConfig":
        """The configuration that `to_json` gave.

        Raises:
            RunError: a field is missing or unknown.
        """
        try:
            if values["model"] == NETWORK:
                predictor, training = predictor_from_json(values["predictor"]), TrainingConfig
            else:
                predictor, training = _typed(TreeConfig, values["predictor"]), BoostingConfig
            parts = {
                "data": _typed(DataConfig, values["data"]),
                "predictor": predictor,
                "training": _typed(training, values["training"]),
            }
            return _typed(cls, {**values, **parts})
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the configuration is not one of this version: {error}") from None


def _typed(kind: type, values: dict):
    """A dataclass from plain values, each of the type that its field declares."""
    for entry in fields(kind):
        if entry.name in _LATER.get(kind.__name__, ()) and entry.name not in values:
            continue
        value, wanted = values[entry.name], _kinds(entry.type)
        if not isinstance(value, wanted) or (isinstance(value, bool) and entry.type is not bool):
            raise TypeError(f"'{entry.name}' is {value!r}, expected {getattr(entry.type, '__name__', entry.type)}")
    return kind(**values)


def _kinds(declared) -> tuple[type, ...]:
    """The types that a value of the declared one may have."""
    if isinstance(declared, UnionType):
        return tuple(kind for part in get_args(declared) for kind in _kinds(part))
    return (int, float) if declared is float else (get_origin(declared) or declared,)


def predictor_from_json(values: dict) -> ModelConfig:
    """The model's configuration from plain values.

    Raises:
        KeyError, TypeError, ValueError: a field is missing, unknown, or not as it must be.
    """
    channels = ("transformers_nfn_channels", "classifier_nfn_channels")
    return _typed(ModelConfig, {**values, **{name: tuple(values[name]) for name in channels}})


def spec_to_json(spec: TransformerSpec) -> dict:
    """A spec as plain values, to be written as JSON."""
    return asdict(spec)


def spec_from_json(values: dict) -> TransformerSpec:
    """The spec that `spec_to_json` gave.

    Raises:
        RunError: a field is missing or unknown.
    """
    try:
        embedding = values["embedding"]
        if embedding is not None:
            embedding = EmbeddingSpec(**{**embedding, "patch": tuple(embedding["patch"])})
        blocks = tuple(BlockSpec(**block) for block in values["blocks"])
        return TransformerSpec(blocks, FeedForwardSpec(tuple(values["classifier"]["sizes"])), embedding)
    except (KeyError, TypeError) as error:
        raise RunError(f"the network's sizes are not those of this version: {error}") from None


def installed_versions() -> dict[str, str]:
    """Versions of Python and of what decides the numbers of a run, and the number of CPU threads."""
    found = {"python": platform.python_version(), "threads": str(torch.get_num_threads())}
    for name in ("nfn-transformer", "torch", "numpy", "scipy", "safetensors", "xgboost", "lightgbm", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def absolute(path: str) -> str:
    """A path that means the same from any folder."""
    return str(Path(path).resolve())
