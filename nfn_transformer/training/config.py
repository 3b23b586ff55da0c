"""Exact configuration of a run, as its directory keeps it."""

import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from nfn_transformer.configuration import (
    COUNT,
    NOT_IN_KEYS,
    PRIVATE,
    check_values,
    from_json,
    key_values,
    setting,
    setting_of,
)
from nfn_transformer.errors import RunError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training.tasks import TASKS
from nfn_transformer.training.tasks.edit import EDITS
from nfn_transformer.trees.config import BoostingConfig, TreeConfig
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

if TYPE_CHECKING:
    from nfn_transformer.families.registry import AnySpec

NETWORK = "transformer_nfn"
"""The --model whose predictor is a neural network; all others are tree models."""

OPTIMIZERS = ("adam", "sgd", "sgd_momentum", "rmsprop")


@dataclass(frozen=True)
class DataConfig:
    """Choice of checkpoints, of what is learned of them, and of those trained on; see `zoo.reading.read_zoo`."""

    dataset: str = setting(
        "",
        "name of the zoo's data set: NAME in metadata/NAME.csv (default: mnist with --data_path, else digits, the "
        "bundled zoo)",
        original=True,
    )
    data_path: str = setting(
        "",
        "folder or zip of the zoo, or a .tar.xz of arrays; docs/public_zoos.md has the formats of others (default: the "
        "first of data/DATASET_transformer, data/DATASET_transformer.zip, data/DATASET_transformers.zip that exists)",
        original=True,
        key="never",
        alias="zoo",
    )
    table: str | None = setting(
        None,
        "CSV of checkpoints' files and scores, for checkpoints of any names, sizes and depths in the folder or zip of "
        "--zoo; columns are guessed where they are plain (default: metadata/DATASET.csv in the zoo)",
        key="never",
        metavar="FILE",
    )
    task: str = setting(
        "accuracy",
        "what is learned of each network: " + " | ".join(f"{name}, {entry.help}" for name, entry in TASKS.items()),
        choices=tuple(TASKS),
    )
    edit: str | None = setting(None, "with --task edit: the picture that is wanted", choices=EDITS)
    edit_side: int = setting(28, "with --edit: pixels of a picture's side", key="edit", low=2, high=1024)
    ckpt_epoch: str = setting(
        "75",
        "epoch of the checkpoints: a number, best, last or all; where a zoo has no epoch 75, last is the default",
        original=True,
        metavar="EPOCH",
    )
    cut_off: float = setting(
        0.0, "keep checkpoints of at least this accuracy, a fraction in [0, 1]", original=True, low=0, high=1
    )
    n_heads: int | None = setting(
        None,
        "attention heads of the zoo's networks; a contradiction to the metadata is an error (default: what each row of "
        "the metadata tells, else 2)",
        original=True,
        low=1,
    )
    allow_faulty: bool = setting(False, "go on although more than 5 % of the checkpoints are faulty", original=True)
    where: str = setting(
        "",
        "read only the rows of the metadata with these values, as n_layers=2,embed_dim=32 of a zoo with networks of "
        "several sizes",
        metavar="COLUMN=VALUE,...",
    )
    test_where: str = setting(
        "",
        "test on the networks with these values of hyperparameters, as n_layers=3, and learn from all others: how a "
        "predictor does on networks of another kind (default: 15 % of the runs, drawn by the seed)",
        metavar="COLUMN=VALUE,...",
    )
    all_sizes: bool = setting(
        False,
        "read networks of all sizes that the metadata's columns embed_dim, n_attention_heads, n_layers and hidden tell "
        "apart, for a model that reads them all, as --enc_mode complete",
    )
    file_column: str | None = setting(None, "column of the metadata with the checkpoints' files (default: ckpt_file)")
    epoch_column: str | None = setting(None, "column of the metadata with the epochs (default: ckpt_epoch)")
    label_column: str | None = setting(
        None,
        "column of the metadata with the labels of the task (default: test_top1_accuracy, else test_accuracy; of "
        "another task than accuracy: label)",
    )
    run_column: str | None = setting(
        None, "column of the metadata with the run of each checkpoint (default: the files' names tell it)"
    )
    weights_key: str | None = setting(
        None, "key of the weights, as ema, in files that hold several networks (default: state_dict, model, ...)"
    )
    activation: str | None = setting(
        None,
        "activation of networks whose zoo does not tell it, as relu, tanh, sine (default: relu, or their library's)",
    )
    omega: str | None = setting(None, "omega of their sin(omega x) (default: 1)", metavar="NUMBER")
    offset: str | None = setting(None, "number that is added to their outputs (default: 0)", metavar="NUMBER")
    stride: str | None = setting(None, "stride of their convolutions, one for all or one each", metavar="N,...")
    padding: str | None = setting(None, "padding of their convolutions, one for all or one each", metavar="N,...")
    norm_placement: str | None = setting(
        None, "pre or post, of standard transformers whose files do not tell (default: their library's)"
    )
    norm_epsilon: str | None = setting(None, "epsilon of their norms (default: their library's)", metavar="NUMBER")
    causal_attention: str | None = setting(
        None, "True where their tokens see no later one (default: their library's)", metavar="BOOL"
    )
    token_pooling: str | None = setting(
        None, "tokens that their head reads: mean, first, last or none (default: first of a class token, else mean)"
    )
    token_positions: str | None = setting(
        None,
        "positions that their files do not hold: none, sinusoidal, or sinusoidal_2d of patches (default: their "
        "library's, else none)",
    )
    final_norm: str | None = setting(
        None, "place of their last norm: before_pooling, after_pooling or none (default: before_pooling)"
    )
    split: str = setting(
        "",
        "file of a published split: JSON with the paths of train, val and test, or the Small CNN Zoo's CSV of rows "
        "(default: 70, 15 and 15 % of the runs, drawn by the seed)",
        key="never",
        metavar="FILE",
    )
    split_checksum: str = setting("")
    train_networks: int | None = setting(
        None,
        "train on so many of the training side, drawn by the seed, to see what a larger zoo is worth; validation and "
        "test sides stay (default: all)",
        low=1,
    )
    folds: int | None = setting(
        None,
        "predict every network: draw so many folds of whole runs, and train a predictor for each on the others",
        low=2,
        high=1000,
        key="folds",
    )
    fold: int | None = setting(None, key="folds")
    """One of the folds, counted from 1, or 0 for the training on all networks."""
    augment: bool = setting(
        False,
        "enlarge each side of the split by transformed copies of its own networks, which are the same functions",
        key="always",
    )
    augment_factor: int = setting(
        2, "with --augment: how many times its size a side ends up with", key="augment", low=2, high=1000
    )
    augment_scale: float = setting(
        1.0,
        "with --augment: the entries of the matrices M and N are uniform in [-SCALE, SCALE]",
        key="augment",
        low=1e-3,
        high=1e3,
    )


@dataclass(frozen=True)
class TrainingConfig:
    """Training of a predictor; the defaults are the published ones (arXiv 2410.04209, appendix).

    Raises:
        ValueError: a value is out of its bounds.
    """

    epochs: int = setting(100, "passes over the training split", original=True, **COUNT)
    warmup_epochs: int = setting(
        10,
        "epochs over which the learning rate rises to --lr, before its cosine to 1e-5; at most --epochs",
        original=True,
        low=0,
    )
    batch_size: int = setting(16, "networks per training step", original=True, **COUNT)
    optimizer: str = setting("adam", "rule of the updates", original=True, choices=OPTIMIZERS)
    lr: float = setting(1e-3, "learning rate after the warm-up", original=True, low=0, above=True)
    wd: float = setting(0.0, "weight decay (L2)", original=True, low=0)
    compile: bool = setting(False, "compile the training step by torch.compile", key="never")
    """Compilation changes the last digits only, as CUDA graphs, device and versions do."""
    cuda_graphs: bool = setting(
        False,
        "launch the kernels of a training step together, which helps small batches on a GPU (default: True on a GPU, "
        "unless several processes train)",
        key="never",
    )
    amp: bool = setting(False, "train in bfloat16 where PyTorch's autocast thinks it safe")
    early_stopping: int | None = setting(
        None,
        "stop when so many epochs in a row have not been the best by validation (default: never)",
        metavar="EPOCHS",
        **COUNT,
    )
    stop_epoch: int | None = setting(None, low=1, key="stop_epoch")
    """Last epoch of the schedule that is trained, where nothing is left to choose one by."""

    def __post_init__(self):
        check_values(fields(self), vars(self))


_Predictor = TypeVar("_Predictor", ModelConfig, TreeConfig)
_Training = TypeVar("_Training", TrainingConfig, BoostingConfig)


@dataclass(frozen=True)
class RunConfig(Generic[_Predictor, _Training]):
    """Configuration of a run: everything that decides its numbers, and the versions and device that it ran with."""

    seed: int
    """Seed of the split, the parameters and the batches."""
    model: str
    """NETWORK, or a tree model's name."""
    data: DataConfig
    """Choice of networks."""
    predictor: _Predictor
    """A ModelConfig if `model` is NETWORK, else a TreeConfig."""
    training: _Training
    """A TrainingConfig if `model` is NETWORK, else a BoostingConfig."""
    device: str = field(default="cpu", metadata=NOT_IN_KEYS)
    """Device that the run is trained on."""
    versions: dict[str, str] = field(default_factory=dict, metadata=NOT_IN_KEYS)
    """Versions of Python and libraries, and the number of threads."""
    command: str = field(default="", compare=False, metadata=PRIVATE)
    """Command line that began the run."""
    commit: str = field(default="", compare=False, metadata=PRIVATE)
    """Commit of the package's checkout, see `checkout_commit`."""
    fit_all: bool = field(default=False, compare=False, metadata=PRIVATE)
    """True where a predictor of all networks is trained after those of folds."""
    ceiling_images: str = field(default="", compare=False, metadata=PRIVATE)
    """Folder of labelled images, for `training.ceilings`; empty: there is none."""
    ceiling_skip: int = field(default=0, compare=False, metadata=PRIVATE)
    """Number of its first test images that are left out."""

    def to_json(self) -> dict:
        """Return plain values, to be written as JSON; settings that nothing reads are left out."""
        predictor, parts = self.predictor, {"data": asdict(self.data), "training": asdict(self.training)}
        for part, values in parts.items():
            for entry in fields(getattr(self, part)):
                if values[entry.name] == entry.default and not values.get(setting_of(entry).key, True):
                    del values[entry.name]
        own = asdict(self)
        for name in ("fit_all", "ceiling_images", "ceiling_skip"):
            if not own[name]:
                del own[name]
        return {
            **own,
            **parts,
            "predictor": predictor.to_json() if isinstance(predictor, ModelConfig) else asdict(predictor),
        }

    @classmethod
    def from_json(cls, values: dict) -> "RunConfig":
        """Return the configuration that `to_json` gave.

        Raises:
            RunError: a field is missing or unknown.
        """
        try:
            is_network, predictor = values["model"] == NETWORK, values["predictor"]
            parts = {
                "data": from_json(DataConfig, values["data"]),
                "predictor": ModelConfig.from_json(predictor) if is_network else from_json(TreeConfig, predictor),
                "training": from_json(TrainingConfig if is_network else BoostingConfig, values["training"]),
            }
            if parts["data"].task not in TASKS:
                raise ValueError(f"'task' is '{parts['data'].task}', expected one of {', '.join(TASKS)}")
            return from_json(cls, {**values, **parts})
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the configuration is not one of this version: {error}") from None

    def key_values(self) -> dict:
        """Return the values of a cell's key: all that decides its numbers, but not the path of its zoo."""
        predictor = self.predictor
        return {
            **key_values(self),
            "data": key_values(self.data),
            "predictor": predictor.key_values() if isinstance(predictor, ModelConfig) else key_values(predictor),
            "training": key_values(self.training),
        }


def spec_from_json(values: dict) -> "AnySpec":
    """Return the spec whose `dataclasses.asdict` is given.

    Raises:
        RunError: a field is missing or unknown.
    """
    from nfn_transformer.families.registry import FAMILIES  # imports PyTorch

    names = {"sizes": NetworkSpec.family, "placement": StandardTransformerSpec.family}
    try:
        name = next((name for field, name in names.items() if field in values), TransformerSpec.family)
        return FAMILIES[name].spec_from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"the network's sizes are not those of this version: {error}") from None


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a run's numbers, and the number of CPU threads."""
    import torch  # which takes a second, and flags need only the configurations

    versions = {"python": platform.python_version(), "threads": str(torch.get_num_threads())}
    for name in ("nfn-transformer", "torch", "numpy", "scipy", "safetensors", "xgboost", "lightgbm", "scikit-learn"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def checkout_commit() -> str:
    """Return the commit of the checkout that the package lies in, with a mark if the package has other changes.

    The text is empty where the package is no checkout's, or git is not there.
    """
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():  # not that of a repository around a virtual environment
        return ""
    argv = ["git", "-C", str(checkout), "status", "--porcelain=v2", "--branch", "--", "nfn_transformer"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        status = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=10)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    lines = status.stdout.splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    changed = any(not line.startswith("#") for line in lines)
    return "".join(commits[:1]) + (" with uncommitted changes" if commits and changed else "")


def absolute(path: str) -> str:
    """Return the absolute path."""
    return str(Path(path).resolve())
