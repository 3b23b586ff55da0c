"""A run's directory: everything that describes the run, each file written in one step.

config.json             the exact configuration, versions, and the sizes of the networks
split.json              file names of the train, validation and test side, and a digest of their data
excluded.csv            checkpoints that were left out, and why; and those used in spite of a quirk
metrics.csv             a row per finished epoch, or per round of a tree model
best.safetensors        weights of the best epoch by validation, with what rebuilds the model; or
best.xgboost.json       the trees of the best round by validation RMSE, as XGBoost writes them; or
best.lightgbm.txt       the same as LightGBM writes them
best.*.sha256           digest of the trees' file, which `sha256sum --check` reads; other files hold their own
state.pt                what resuming a network needs; removed when the run is complete
results.json            validation and test metrics of the best epoch or round; there once the run is complete
test_predictions.csv    file name, true and predicted label of each test checkpoint
out_of_fold_predictions.csv, fold1, ..., all    of a run of folds, see `folds`
test_predictions.png    the same as a scatter plot; or
confusion_matrix.png    how many networks of each class got each prediction; or
edited.png              pictures before, wanted and got
learning_curves.png     metrics.csv as a picture
"""

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Self

import torch

from nfn_transformer import atomic_files
from nfn_transformer.errors import RunError
from nfn_transformer.families.registry import AnySpec
from nfn_transformer.training.config import RunConfig, spec_from_json
from nfn_transformer.training.results import read_json
from nfn_transformer.zoo.torch_file import load_torch_file


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path):
        self._unlock: weakref.finalize | None = None
        self.path = path
        self.config_file = path / "config.json"
        self.split_file = path / "split.json"
        self.excluded_file = path / "excluded.csv"
        self.metrics_file = path / "metrics.csv"
        self.best_file = path / "best.safetensors"
        self.state_file = path / "state.pt"
        self.results_file = path / "results.json"
        self.predictions_file = path / "test_predictions.csv"
        self.out_of_fold_file = path / "out_of_fold_predictions.csv"
        self.scatter_file = path / "test_predictions.png"
        self.curves_file = path / "learning_curves.png"

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, spec: AnySpec, split: dict, report: str) -> Self:
        """Return a new run directory, which appears at once with everything that describes the run.

        Args:
            path: its place; None makes runs/NAME-DATE-TIME, numbered where that is taken.
            config, spec, split, report: content of config.json, split.json and excluded.csv.

        Raises:
            RunError: the path is a file, cannot be made, or holds anything already.
        """
        parent = Path("runs") if path is None else path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            made = cls(Path(tempfile.mkdtemp(dir=parent, prefix=".", suffix=".part")))
        except OSError as error:
            raise RunError(f"--out_dir {path or parent}: cannot be made ({error.strerror})") from None
        try:
            write_json(made.config_file, {**config.to_json(), "networks": asdict(spec)})
            write_json(made.split_file, split)
            atomic_files.write_text(made.excluded_file, report)
            made.path.chmod(atomic_files.permissions(0o777))
            if path is not None:
                check_free(path)
                return cls(made.path.rename(path))
            name = f"{config.data.dataset}-{config.predictor.name}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"
            for number in itertools.count(1):
                try:
                    return cls(made.path.rename(parent / (name if number == 1 else f"{name}-{number}")))
                except OSError as error:  # another command may have taken the name a moment ago
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                        raise
            raise AssertionError("unreachable")
        except BaseException:
            shutil.rmtree(made.path)
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the directory of a run that has begun.

        Raises:
            RunError: there is no run at the path.
        """
        run = cls(path)
        if not run.config_file.is_file():
            seeds = [str(file.parent) for file in sorted(path.glob("seed*/config.json"))]
            advice = f"; it holds runs of several seeds: {' '.join(seeds)}" if seeds else ""
            raise RunError(f"{path}: not a run directory; expected a file config.json in it{advice}")
        return run

    def lock(self) -> None:
        """Keep other processes from writing the run until `release`, or until this process ends in any way.

        Raises:
            RunError: another process writes the run.
        """
        descriptor = os.open(self.config_file, os.O_RDWR)  # over NFS, only what is open for writing can be locked
        self._unlock = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise RunError(f"{self.path}: another process is writing this run; wait for it, or stop it") from None
        except OSError:
            pass  # this file system has no locks

    def release(self) -> None:
        """Let other processes write the run."""
        if self._unlock is not None:
            self._unlock()

    def read_config(self) -> tuple[RunConfig, AnySpec]:
        """Return the configuration and the sizes of the networks.

        Raises:
            RunError: the file is damaged or of another version.
        """
        values = read_json(self.config_file)
        try:
            spec = spec_from_json(values.pop("networks", {}))
            return RunConfig.from_json(values), spec
        except RunError as error:
            raise RunError(f"{self.config_file}: {error}") from None

    @property
    def is_finished(self) -> bool:
        """Return whether nothing is left to do; the state goes last, after results and pictures."""
        return self.results_file.is_file() and not self.state_file.is_file()

    def remove_leftovers(self) -> None:
        """Remove temporary files that a kill left behind; only where no other command writes here."""
        for leftover in self.path.glob(".*.part"):
            leftover.unlink(missing_ok=True)

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        """Write metrics.csv: the rows, of which there is at least one, under their common names."""
        atomic_files.write_csv(self.metrics_file, list(rows[0]), [list(row.values()) for row in rows])

    def write_state(self, state: dict) -> None:
        """Write state.pt: tensors and plain containers."""
        with atomic_files.replacing(self.state_file) as temporary:
            torch.save(state, temporary)

    def read_state(self) -> dict | None:
        """Return the state that was written last; None before the first finished epoch.

        Raises:
            RunError: the file is damaged.
        """
        if not self.state_file.is_file():
            return None
        try:
            state = load_torch_file(self.state_file.read_bytes())
            if not isinstance(state, dict):
                raise ValueError(f"holds a {type(state).__name__}, expected a dict")
            return state
        except (OSError, ValueError) as error:
            raise RunError(f"{self.state_file}: cannot be read ({error}); the run cannot go on") from None


def digest_file(path: Path) -> Path:
    """Return the path of the digest of a file of trees."""
    return path.with_name(f"{path.name}.sha256")


def digest_line(path: Path, content: bytes) -> str:
    """Return the digest of a file's content, as `sha256sum` writes it."""
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"


def check_free(path: Path) -> None:
    """Raise RunError where a run directory cannot be made, because something is there."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        begun = (path / "config.json").is_file()
        hint = f"give another, or continue that run by --resume {path}" if begun else "give another"
        raise RunError(f"--out_dir {path}: is not an empty directory; {hint}")


def write_json(path: Path, values: Mapping) -> None:
    """Write indented JSON in one step; numbers that are not finite, which JSON lacks, become null."""
    strict = json.loads(json.dumps(values), parse_constant=lambda name: None)
    atomic_files.write_text(path, json.dumps(strict, indent=2, allow_nan=False) + "\n")
