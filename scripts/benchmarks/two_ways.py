"""The published way and ours, made alike so that they can be measured alike: predictions, training steps, epochs.

Both begin with the same parameters and see the same networks. A way is prepared for a case and then asked for

- forward: predictions for one batch, from what the way keeps of it between epochs; ours keeps features;
- forward_from_weights: the same from raw weights, features included;
- training_step: the published one from a batch that its workers have collated; ours from the indices of a batch;
- epochs: whole ones, a pass over the training side and the validation after it, as each way's loop does them; the
  published one validates in the batches that its loaders make, ours in large ones.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import Case, new_run, random_zoo, run_of_steps, seconds_of_one, synchronize
from published_way import (
    PublishedDataset,
    PublishedPredictor,
    collated_weights,
    published_loader,
    published_optimizer,
    published_training_step,
)
from torch.utils.data import DataLoader, default_collate

from nfn_transformer import build_predictor, make_generator
from nfn_transformer.training.batches import StoredFeatures, read_features
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.data import split_runs
from nfn_transformer.training.history import Record
from nfn_transformer.training.loop import train
from nfn_transformer.training.metrics import measure_logits
from nfn_transformer.training.step import Step, keep_freed_memory

SEED = 1

FORWARD, FORWARD_FROM_WEIGHTS, TRAINING_STEP = OPERATIONS = ("forward", "forward_from_weights", "training_step")

Turn = Callable[[float], None]
"""Takes what a way has measured, and returns when it is its turn again."""


class Way:
    """Base of both ways.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device):
        self.device = device

    def repetitions(self, operation: str, seconds: float) -> int:
        """How often an operation of the prepared case must be repeated to take so many seconds; warms it up."""
        call = getattr(self, operation)
        call()
        return max(1, round(seconds / seconds_of_one(call, 1, self.device)))

    def seconds(self, operation: str, repetitions: int) -> float:
        """Mean seconds of the prepared case's operation."""
        return seconds_of_one(getattr(self, operation), repetitions, self.device)


class PublishedWay(Way):
    """The baseline, see `published_way`.

    Args:
        device: where the model is.
        workers: processes that collate batches in an epoch.
    """

    def __init__(self, device: torch.device, workers: int):
        super().__init__(device)
        self.workers = workers

    def prepare(self, case: Case) -> None:
        """Make the model and one batch."""
        self.model = self.optimizer = None  # a large one of the case before must make room
        self._make_model(case)
        zoo, index = random_zoo(case.spec, case.batch_size), torch.arange(case.batch_size)
        loader = published_loader(
            zoo, index, case.batch_size, workers=0, generator=make_generator(SEED, "published batches")
        )
        self.stored: PublishedDataset = loader.dataset
        (self.batch,) = loader  # pinned, where there is a GPU
        self.weights = collated_weights(self.batch[0]).to(self.device)

    def _make_model(self, case: Case) -> None:
        self.model = PublishedPredictor(build_predictor(case.spec, case.model, SEED)).to(self.device)
        self.optimizer = published_optimizer(self.model)

    @torch.inference_mode()
    def forward(self) -> None:
        """Predictions from the batch's weights."""
        self.model(self.weights)

    forward_from_weights = forward

    def training_step(self) -> None:
        """From a collated batch on the CPU to updated parameters."""
        published_training_step(self.model, self.optimizer, self.batch)

    def training_step_from_stored(self) -> None:
        """The same from the data set's samples, collated on the way."""
        published_training_step(self.model, self.optimizer, default_collate(list(self.stored)))

    def epochs(self, case: Case, count: int, turn: Turn) -> None:
        """Seconds of collecting the data sets, then those of each epoch, to `turn`."""
        zoo = random_zoo(case.spec, case.networks)
        split, generator = split_runs(zoo.runs, SEED), make_generator(SEED, "published batches")
        start = time.perf_counter()
        training = published_loader(zoo, split.train, case.batch_size, self.workers, generator)
        validation = published_loader(zoo, split.validation, case.batch_size, self.workers, generator)
        turn(time.perf_counter() - start)
        self._make_model(case)
        for _ in range(count):
            start = time.perf_counter()
            self._epoch(training, validation)
            turn(time.perf_counter() - start)

    def _epoch(self, training: DataLoader, validation: DataLoader) -> None:
        self.model.train()
        for batch in training:
            published_training_step(self.model, self.optimizer, batch)
        self.model.eval()
        with torch.no_grad():
            found = [
                (self.model(collated_weights(samples).to(self.device, non_blocking=True)), labels)
                for samples, labels in validation
            ]
        logits, labels = zip(*found, strict=True)
        measure_logits(torch.cat(logits), torch.cat(labels))


class OurWay(Way):
    """The package's: features that are read once, `Step`, and `train`.

    Args:
        device: where the model is.
        settings: of the TrainingConfig, beside the batch size and the number of epochs.
    """

    def __init__(self, device: torch.device, **settings: bool):
        super().__init__(device)
        self.settings = settings
        keep_freed_memory()

    def prepare(self, case: Case) -> None:
        """Make the model, the features of one batch, and the step."""
        self.model = self.step = None  # a large one of the case before must make room
        config = TrainingConfig(batch_size=case.batch_size, **self.settings)
        zoo, index = random_zoo(case.spec, case.batch_size), torch.arange(case.batch_size)
        run = run_of_steps(zoo, case.model, config, SEED, self.device)
        self.model, self.step = run.model, Step([run])
        self.stored, self.index = StoredFeatures(self.model.featurize, zoo, index, self.device), index.to(self.device)
        self.features, _ = self.stored.batch(self.index)
        self.weights = zoo.weights(index).to(self.device)

    @torch.inference_mode()
    def forward(self) -> None:
        """Predictions from the batch's features."""
        self.model.from_features(self.features)

    @torch.inference_mode()
    def forward_from_weights(self) -> None:
        """Predictions from the batch's weights."""
        self.model(self.weights)

    def training_step(self) -> None:
        """From the indices of a batch to updated parameters."""
        self.step(*self.stored.batch(self.index), len(self.index))

    training_step_from_stored = training_step

    def epochs(self, case: Case, count: int, turn: Turn) -> None:
        """Seconds of reading the features, then those of each epoch, as `train` itself finds them, to `turn`."""
        zoo = random_zoo(case.spec, case.networks)
        config = TrainingConfig(count, batch_size=case.batch_size, **self.settings)

        with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
            run = new_run(zoo, case.model, config, SEED, self.device, Path(folder))
            run.trackers.append(_EpochSeconds(turn))
            start = time.perf_counter()
            read_features([run], stream=False)
            synchronize(self.device)
            turn(time.perf_counter() - start)
            train([run], stream=False)


class _EpochSeconds:
    """A tracker that gives the seconds of each epoch to a turn."""

    def __init__(self, turn: Turn):
        self._turn = turn

    def log(self, record: Record) -> None:
        self._turn(record.seconds)
