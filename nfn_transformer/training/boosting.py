"""Training a tree model: rounds trained once, each one measured, the best by validation RMSE kept."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy import ndarray
from torch import Tensor
from tqdm import tqdm

from nfn_transformer import atomic_files
from nfn_transformer.seeding import derive_seed
from nfn_transformer.training.config import RunConfig
from nfn_transformer.training.data import RunData
from nfn_transformer.training.metrics import Metrics, measure_regression
from nfn_transformer.training.progress import Progress, validation_columns, validation_line
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.trees.config import BoostingConfig
from nfn_transformer.trees.features import features_of_checkpoints
from nfn_transformer.trees.fitting import Settings, Sides
from nfn_transformer.trees.libraries import tree_library

# Of more rounds than these not every one is worth a line on the screen.
_LINES = 100
# metrics.csv is written whole each time.
_ROUNDS_BETWEEN_WRITING = 25


@dataclass(frozen=True)
class RoundRecord:
    """One round: root mean squared error on the training side, validation metrics, seconds."""

    round: int
    train_loss: float
    validation: Metrics
    seconds: float

    @property
    def number(self) -> int:
        """The round, counted from 1."""
        return self.round

    def row(self) -> dict[str, float]:
        """The record as a flat row of metrics.csv."""
        validation = validation_columns(self.validation)
        return {"round": self.round, "train_loss": self.train_loss, **validation, "seconds": self.seconds}

    def line(self, total: int) -> str | None:
        """The record as one line for the screen; None where it is not worth one."""
        if self.round > 1 and self.round % max(1, total // _LINES):
            return None
        return (
            f"round {self.round:>{len(str(total))}}/{total}  train loss {self.train_loss:.4f}  "
            f"{validation_line(self.validation)}  {self.seconds:.1f} s"
        )


def train_trees(config: RunConfig, data: RunData, run: RunDirectory, report: Callable[[RoundRecord], None]) -> Progress:
    """Fit the tree model of a configuration on the CPU's threads or on its device; the test side is never read here.

    Leaves metrics.csv, also where it is interrupted, and the best round's trees in the run directory.

    Args:
        config: of a tree model.
        data: the zoo, on the CPU, and its split.
        run: where metrics and trees go.
        report: called with each finished round.
    """
    library = tree_library(config.predictor.library)
    train, validation, features = data.split.train, data.split.validation, config.predictor.features
    sides = Sides(
        train=features_of_checkpoints(features, data.zoo, train).numpy(),
        train_labels=data.zoo.labels[train].numpy(),
        validation=features_of_checkpoints(features, data.zoo, validation).numpy(),
        validation_labels=data.zoo.labels[validation].numpy(),
    )
    follower = _Follower(data.zoo.labels[validation], config.training, run, report)
    seed = derive_seed(config.seed, "trees") % 2**31
    settings = Settings(config.predictor, config.training, seed, torch.get_num_threads(), config.device)
    try:
        with follower.bar:
            model = library.fit(settings, sides, follower)
    finally:
        follower.write()
    with atomic_files.replacing(run.path / library.file_name) as temporary:
        temporary.write_bytes(model.content)
    return follower.progress


class _Follower:
    """Measures each round, knows the best one, and says when to stop (`trees.fitting.Observer`)."""

    def __init__(
        self, labels: Tensor, config: BoostingConfig, run: RunDirectory, report: Callable[[RoundRecord], None]
    ):
        self.progress = Progress.by_rounds()
        self.bar = tqdm(total=config.rounds, unit=" rounds", leave=False, disable=None)
        self._labels, self._config, self._run, self._report = labels, config, run, report
        self._start = time.perf_counter()

    def finish_round(self, train_loss: float, predictions: ndarray) -> tuple[bool, bool]:
        """Record a round; returns whether it is the best so far, and whether it shall be the last."""
        now = time.perf_counter()
        validation = measure_regression(torch.from_numpy(predictions), self._labels)
        record = RoundRecord(len(self.progress.history) + 1, train_loss, validation, now - self._start)
        self._start = now
        self.progress.history.append(record)
        best = self.progress.best
        self.bar.update()
        self._report(record)
        if record.round % _ROUNDS_BETWEEN_WRITING == 0:
            self.write()
        patience = self._config.early_stopping
        return best is record, patience is not None and record.round - best.round >= patience

    def write(self) -> None:
        """Write metrics.csv, where a round is done."""
        if self.progress.history:
            self._run.write_metrics([record.row() for record in self.progress.history])
