"""The exact configuration of a run: what is written into its directory and read back from it."""

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from nfn_transformer.errors import RunError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec


@dataclass(frozen=True)
class DataConfig:
    """Which checkpoints are read, and which of them are kept (see `zoo.reading.read_zoo`)."""

    dataset: str
    data_path: str
    ckpt_epoch: str = "75"
    cut_off: float = 0.0
    n_heads: int | None = None
    allow_faulty: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """How a predictor is trained; the defaults are the published ones (arXiv 2410.04209, appendix)."""

    epochs: int = 100
    warmup_epochs: int = 10
    batch_size: int = 16
    optimizer: str = "adam"
    lr: float = 1e-3
    wd: float = 0.0


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's numbers, and the versions and device that it ran with."""

    seed: int
    model: str
    data: DataConfig
    predictor: ModelConfig
    training: TrainingConfig
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
            parts = {
                "data": DataConfig(**values["data"]),
                "predictor": predictor_from_json(values["predictor"]),
                "training": TrainingConfig(**values["training"]),
            }
            return cls(**{**values, **parts})
        except (KeyError, TypeError) as error:
            raise RunError(f"the configuration is not one of this version: {error}") from None


def predictor_from_json(values: dict) -> ModelConfig:
    """The model's configuration from plain values.

    Raises:
        KeyError, TypeError: a field is missing or unknown.
    """
    channels = ("transformers_nfn_channels", "classifier_nfn_channels")
    return ModelConfig(**{**values, **{name: tuple(values[name]) for name in channels}})


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
    for name in ("nfn-transformer", "torch", "numpy", "scipy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def absolute(path: str) -> str:
    """A path that means the same from any folder."""
    return str(Path(path).resolve())
