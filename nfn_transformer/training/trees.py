"""The run of a tree model: rounds trained once, each one measured, the best by validation RMSE kept."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from numpy import ndarray
from tqdm import tqdm

from nfn_transformer import atomic_files
from nfn_transformer.models.consensus import CONSENSUS_FILE, Consensus, save_consensus
from nfn_transformer.resources import peak_mib
from nfn_transformer.seeding import derive_seed
from nfn_transformer.training.class_task import TreeClassTask
from nfn_transformer.training.config import RunConfig
from nfn_transformer.training.data import RunData
from nfn_transformer.training.history import History, RoundRecord, later_is_better
from nfn_transformer.training.metrics import is_lower
from nfn_transformer.training.number_tasks import TreeTask
from nfn_transformer.training.run_directory import RunDirectory, digest_file, digest_line
from nfn_transformer.training.tracking import Tracker
from nfn_transformer.trees.config import BoostingConfig, TreeConfig
from nfn_transformer.trees.features import TREE_FEATURES, features_of_checkpoints
from nfn_transformer.trees.fitting import Settings, Sides
from nfn_transformer.trees.libraries import tree_library

# metrics.csv is written whole each time.
_ROUNDS_BETWEEN_WRITING = 25


@dataclass(eq=False)
class TreeRun:
    """The training of one tree model; interrupted it is trained anew, as no library goes on to the same bits."""

    config: RunConfig[TreeConfig, BoostingConfig]
    data: RunData
    task: TreeTask | TreeClassTask
    """what the trees learn"""
    directory: RunDirectory = field(init=False)
    """made once all runs of a command are sound"""
    history: History = field(default_factory=lambda: History(unit="round", better=is_lower))
    trackers: list[Tracker] = field(default_factory=list)
    """are given each round"""

    @classmethod
    def on_available_device(cls, config: RunConfig, data: RunData) -> "TreeRun":
        """Return a run on the device that the library can use; warn on stderr where another one was wanted."""
        device, reason = tree_library(config.predictor.library).device_for(config.device)
        if reason:
            print(f"warning: --device {config.device}: {reason}; training on the CPU", file=sys.stderr)
        history = History(unit="round", better=is_lower if len(data.split.validation) else later_is_better)
        return cls(replace(config, device=device), data, tree_task(config.data.task, data.zoo.classes), history=history)

    def describe(self) -> str:
        """Return the library and the kind of the model, for the screen."""
        predictor = self.config.predictor
        return f"{predictor.kind} on {TREE_FEATURES[predictor.features].help}"

    def train(self, progress: bool | None = None) -> None:
        """Fit the model on the CPU's threads or on its device; the test side is never read here.

        With `progress` a bar is shown on stderr, by default on a terminal alone.

        Leaves metrics.csv, also where it is interrupted, and the best round's trees in the run directory. The seconds
        of the first round are those of the features too.
        """
        start = time.perf_counter()
        config, data, features = self.config, self.data, self.config.predictor.features
        library = tree_library(config.predictor.library)
        train, validation = data.split.train, data.split.validation
        validation, consensus = validation if len(validation) else train, None
        if TREE_FEATURES[features].has_consensus:
            consensus = Consensus(data.zoo.spec)
            consensus.fit(data.zoo, train, config.seed)
            save_consensus(self.directory.path / CONSENSUS_FILE, consensus)
        sides = Sides(
            train=features_of_checkpoints(features, data.zoo, train, consensus).numpy(),
            train_labels=self.task.targets(data.zoo.labels[train]).numpy(),
            validation=features_of_checkpoints(features, data.zoo, validation, consensus).numpy(),
            validation_labels=self.task.targets(data.zoo.labels[validation]).numpy(),
        )
        if consensus is not None:
            consensus.forget_answers()
        seed = derive_seed(config.seed, "trees") % 2**31
        of_shares = config.data.task == "accuracy"
        threads = torch.get_num_threads()
        settings = Settings(config.predictor, config.training, seed, threads, config.device, of_shares)
        observer = _RoundObserver(self, progress, start)
        try:
            with observer.bar:
                model = library.fit(settings, sides, observer)
        finally:
            self._write_metrics()
        path, content = self.directory.path / library.file_name, model.content
        # The digest goes first: a kill between the two leaves no trees, and the run begins again.
        path.unlink(missing_ok=True)
        atomic_files.write_text(digest_file(path), digest_line(path, content))
        with atomic_files.replacing(path) as temporary:
            temporary.write_bytes(content)

    def finish_round(self, record: RoundRecord) -> None:
        """Write a round down."""
        self.history.records.append(record)
        for tracker in self.trackers:
            tracker.log(record)
        if record.number % _ROUNDS_BETWEEN_WRITING == 0:
            self._write_metrics()

    def _write_metrics(self) -> None:
        if self.history.records:
            self.directory.write_metrics([record.row() for record in self.history.records])


def tree_task(name: str, classes: Sequence[str]) -> TreeTask | TreeClassTask:
    """Return the task of trees that learn accuracies, numbers or one of the classes."""
    return TreeClassTask(classes=tuple(classes)) if name == "classify" else TreeTask(name)


class _RoundObserver:
    """Measures each round, and says when to stop (`trees.fitting.Observer`)."""

    def __init__(self, run: TreeRun, progress: bool | None, start: float):
        hidden = None if progress is None else not progress
        self.bar = tqdm(total=run.config.training.rounds, unit=" rounds", leave=False, disable=hidden)
        split = run.data.split
        self._run, self._labels = run, run.data.zoo.labels[split.validation if len(split.validation) else split.train]
        self._start = start

    def finish_round(self, train_loss: float, predictions: ndarray) -> tuple[bool, bool]:
        """Record a round; return whether it is the best so far, and whether it shall be the last."""
        now, history = time.perf_counter(), self._run.history
        validation = self._run.task.measure(torch.from_numpy(predictions), self._labels)
        peak = peak_mib(torch.device("cpu"))
        record = RoundRecord(len(history.records) + 1, train_loss, validation, now - self._start, peak)
        self._start = now
        self._run.finish_round(record)
        self.bar.update()
        best, patience = history.best, self._run.config.training.early_stopping
        is_last = patience is not None and best is not None and record.number - best.number >= patience
        return best is record, is_last
