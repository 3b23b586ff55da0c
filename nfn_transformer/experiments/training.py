"""The training loop: published schedule, validation every epoch, resumable after every epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from nfn_transformer.errors import RunError
from nfn_transformer.experiments.config import TrainingConfig
from nfn_transformer.experiments.data import RunData
from nfn_transformer.experiments.metrics import Metrics, measure_logits
from nfn_transformer.experiments.optimization import build_optimizer, learning_rate
from nfn_transformer.experiments.predictions import predict_logits
from nfn_transformer.experiments.progress import Progress, validation_columns, validation_line
from nfn_transformer.experiments.run_directory import RunDirectory
from nfn_transformer.experiments.saved_predictor import save_predictor
from nfn_transformer.models.predictor import AccuracyPredictor
from nfn_transformer.seeding import stream


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: training loss, validation metrics, learning rate, seconds."""

    epoch: int
    train_loss: float
    validation: Metrics
    lr: float
    seconds: float

    @property
    def number(self) -> int:
        """The epoch, counted from 1."""
        return self.epoch

    def row(self) -> dict[str, float]:
        """The record as a flat row of metrics.csv."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            **validation_columns(self.validation),
            "lr": self.lr,
            "seconds": self.seconds,
        }

    @classmethod
    def from_row(cls, row: dict[str, float]) -> "EpochRecord":
        """The record that `row` gave."""
        prefix = "validation_"
        validation = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        return cls(row["epoch"], row["train_loss"], Metrics(**validation), row["lr"], row["seconds"])

    def line(self, total: int) -> str:
        """The record as one line for the screen."""
        return (
            f"epoch {self.epoch:>{len(str(total))}}/{total}  train loss {self.train_loss:.4f}  "
            f"{validation_line(self.validation)}  lr {self.lr:.2e}  {self.seconds:.1f} s"
        )


class Trainer:
    """Trains a predictor and leaves a run directory from which it can go on after any interruption.

    Args:
        model: on the device of the data.
        data: the zoo and its split; the test side is never read here.
        config: the training's hyperparameters.
        seed: of the order of the batches.
        run: where metrics, best weights and state go.
        report: called with each finished epoch.
    """

    def __init__(
        self,
        model: AccuracyPredictor,
        data: RunData,
        config: TrainingConfig,
        seed: int,
        run: RunDirectory,
        report: Callable[[EpochRecord], None],
    ):
        self.model, self.data, self.config, self.seed, self.run, self.report = model, data, config, seed, run, report
        self.optimizer = build_optimizer(config.optimizer, model.parameters(), config.lr, config.wd)
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] = {}

    def resume(self) -> None:
        """Take up the state after the last finished epoch, if there is one.

        Raises:
            RunError: the state is damaged.
        """
        state = self.run.read_state()
        if state is None:
            return
        try:
            self.model.load_state_dict(state["best"])
            self.best_weights = self._copy_of_weights()
            self.progress = Progress([EpochRecord.from_row(row) for row in state["history"]])
            # A kill may have come between the files of an epoch: those beside the state follow it again.
            save_predictor(self.run.best_file, self.model, self.progress.best.epoch)
            self.run.write_metrics([entry.row() for entry in self.progress.history])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RunError(f"{self.run.state_file}: is not the state of this run: {error}") from None

    def train(self) -> Progress:
        """Train the epochs that are left; stop after one whose loss is not finite."""
        batches = math.ceil(len(self.data.split.train) / self.config.batch_size)
        done = len(self.progress.history)
        total, initial = self.config.epochs * batches, done * batches
        with tqdm(total=total, initial=initial, unit=" batches", leave=False, disable=None) as bar:
            for epoch in range(done + 1, self.config.epochs + 1):
                bar.set_description(f"epoch {epoch}/{self.config.epochs}")
                record = self._epoch(epoch, bar)
                if not (math.isfinite(record.train_loss) and math.isfinite(record.validation.loss)):
                    self.progress.diverged = (
                        f"epoch {epoch}: the loss is not finite (training {record.train_loss}, "
                        f"validation {record.validation.loss}); a lower --lr may help"
                    )
                    break
                self._keep(record)
        return self.progress

    def _epoch(self, epoch: int, bar: tqdm) -> EpochRecord:
        start = time.perf_counter()
        config = self.config
        rate = learning_rate(epoch, config.lr, config.epochs, config.warmup_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._train_epoch(epoch, bar)
        logits = predict_logits(self.model, self.data.zoo, self.data.split.validation)
        validation = measure_logits(logits, self.data.zoo.labels[self.data.split.validation])
        return EpochRecord(epoch, loss, validation, rate, time.perf_counter() - start)

    def _train_epoch(self, epoch: int, bar: tqdm) -> float:
        """One pass over the training side in an order drawn from seed and epoch; the mean loss."""
        self.model.train()
        zoo, train = self.data.zoo, self.data.split.train
        order = train[torch.randperm(len(train), generator=stream(self.seed, "batches", epoch))]
        total = torch.zeros((), dtype=torch.float64, device=zoo.rows.device)
        for batch in order.split(self.config.batch_size):
            index = batch.to(zoo.rows.device)
            loss = binary_cross_entropy_with_logits(self.model(zoo.weights(index)), zoo.labels[index])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(batch)
            bar.update()
        return total.item() / len(train)

    def _keep(self, record: EpochRecord) -> None:
        """Write the epoch down. The state goes first: everything else can be written from it again."""
        self.progress.history.append(record)
        is_best = self.progress.best is record
        if is_best:
            self.best_weights = self._copy_of_weights()
        self.run.write_state(
            {
                "model": self.model.state_dict(),
                "best": self.best_weights,
                "optimizer": self.optimizer.state_dict(),
                "history": [entry.row() for entry in self.progress.history],
            }
        )
        if is_best:
            save_predictor(self.run.best_file, self.model, record.epoch)
        self.run.write_metrics([entry.row() for entry in self.progress.history])
        self.report(record)

    def _copy_of_weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
