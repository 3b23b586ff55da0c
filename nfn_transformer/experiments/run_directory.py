"""A run's directory: everything that describes the run, each file written in one step.

config.json             the exact configuration, versions, and the sizes of the networks
split.json              file names of the train, validation and test side, and a digest of their data
excluded.csv            checkpoints that were left out, and why
metrics.csv             a row per finished epoch
best.safetensors        weights of the best epoch by validation tau, with what rebuilds the model
state.pt                what resuming needs; removed when the run is complete
results.json            validation and test metrics of the best epoch; there once the run is complete
test_predictions.csv    file name, true and predicted accuracy of each test checkpoint
test_predictions.png    the same as a scatter plot
"""

import csv
import io
import json
import math
from datetime import datetime
from pathlib import Path

import torch

from nfn_transformer import atomic_files
from nfn_transformer.errors import RunError
from nfn_transformer.experiments.config import RunConfig, spec_from_json, spec_to_json
from nfn_transformer.weights.spec import TransformerSpec


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.config_file = path / "config.json"
        self.split_file = path / "split.json"
        self.excluded_file = path / "excluded.csv"
        self.metrics_file = path / "metrics.csv"
        self.best_file = path / "best.safetensors"
        self.state_file = path / "state.pt"
        self.results_file = path / "results.json"
        self.predictions_file = path / "test_predictions.csv"
        self.scatter_file = path / "test_predictions.png"

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """A new, empty run directory.

        Raises:
            RunError: the path is a file, cannot be made, or holds anything already.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        except OSError as error:
            raise RunError(f"--out_dir {path}: cannot be made ({error.strerror})") from None
        if occupied:
            raise RunError(f"--out_dir {path}: is not empty; give another, or continue that run by --resume {path}")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """The directory of a run that has begun.

        Raises:
            RunError: there is no run at the path.
        """
        run = cls(path)
        if not run.config_file.is_file():
            raise RunError(f"{path}: not a run directory; expected a file config.json in it")
        return run

    def write_config(self, config: RunConfig, spec: TransformerSpec) -> None:
        """Write the configuration and the sizes of the networks."""
        write_json(self.config_file, {**config.to_json(), "networks": spec_to_json(spec)})

    def read_config(self) -> tuple[RunConfig, TransformerSpec]:
        """The configuration and the sizes of the networks.

        Raises:
            RunError: the file is damaged or of another version.
        """
        values = read_json(self.config_file)
        spec = spec_from_json(values.pop("networks", {}))
        return RunConfig.from_json(values), spec

    def write_state(self, state: dict) -> None:
        """Write what resuming needs: tensors and plain containers."""
        with atomic_files.replacing(self.state_file) as temporary:
            torch.save(state, temporary)

    def read_state(self) -> dict | None:
        """What `write_state` wrote last; None before the first finished epoch.

        Raises:
            RunError: the file is damaged.
        """
        if not self.state_file.is_file():
            return None
        try:
            return torch.load(self.state_file, map_location="cpu", weights_only=True)
        except Exception as error:  # damage makes torch.load fail in more ways than it documents
            raise RunError(
                f"{self.state_file}: cannot be read ({type(error).__name__}); the run cannot go on"
            ) from None


def default_path(name: str, parent: Path = Path("runs")) -> Path:
    """A readable path that is not taken: runs/NAME-YYYYMMDD-HHMMSS, numbered where that exists."""
    base = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = parent / base, 2
    while path.exists():
        path, number = parent / f"{base}-{number}", number + 1
    return path


def write_json(path: Path, values: dict) -> None:
    """Write indented JSON in one step; numbers that are not finite, which JSON lacks, become null."""
    atomic_files.write_text(path, json.dumps(_strict(values), indent=2, allow_nan=False) + "\n")


def _strict(value):
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        RunError: the file is missing or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: holds a {type(values).__name__}, expected a JSON object")
    return values


def write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    """Write a table in one step; floats keep all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    atomic_files.write_text(path, text.getvalue())
