"""One run's training: its model, optimizer and progress, and what is written after every epoch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nfn_transformer.errors import RunError
from nfn_transformer.models.predictor import Predictor
from nfn_transformer.seeding import derive_seed, make_generator
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.data import RunData
from nfn_transformer.training.epoch_record import EpochRecord
from nfn_transformer.training.metrics import Metrics
from nfn_transformer.training.optimizer import build_optimizer, learning_rate
from nfn_transformer.training.progress import Progress
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.saved_predictor import save_predictor


class Trainer:
    """Leaves a run directory from which its training can go on after any interruption; `training.train` drives it.

    Args:
        model: on the device that trains.
        data: the zoo and its split; the test side is never read here.
        config: the training's hyperparameters.
        seed: of the order of the batches.
        run: where metrics, best weights and state go.
        report: called with each finished epoch.
        writes: whether this process writes the run's files and reports; of several, one does.
    """

    def __init__(
        self,
        model: Predictor,
        data: RunData,
        config: TrainingConfig,
        seed: int,
        run: RunDirectory,
        report: Callable[[EpochRecord], None],
        writes: bool = True,
    ):
        self.model, self.data, self.config, self.seed, self.run, self.report = model, data, config, seed, run, report
        self.writes = writes
        self.optimizer = build_optimizer(config.optimizer, model.parameters(), config.lr, config.wd)
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.data.split.train) / self.config.batch_size)

    @property
    def finished_epochs(self) -> int:
        """How many epochs are done."""
        return len(self.progress.history)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train."""
        if self.progress.diverged is not None or self.finished_epochs >= self.config.epochs:
            return True
        patience, best = self.config.early_stopping, self.progress.best
        return patience is not None and best is not None and self.finished_epochs - best.number >= patience

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
            if self.writes:
                # A kill may have come between the files of an epoch: those beside the state follow it again.
                save_predictor(self.run.best_file, self.model, self.progress.best.epoch)
                self.run.write_metrics([entry.row() for entry in self.progress.history])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RunError(f"{self.run.state_file}: is not the state of this run: {error}") from None

    def begin_epoch(self) -> None:
        """Make model and optimizer ready for the next epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.model.begin_epoch(derive_seed(self.seed, "dropout", self.finished_epochs + 1))
        self.model.train()

    def order(self) -> Tensor:
        """The training side in the next epoch's order, drawn from seed and epoch: int64 [n]."""
        train = self.data.split.train
        return train[
            torch.randperm(len(train), generator=make_generator(self.seed, "batches", self.finished_epochs + 1))
        ]

    def finish_epoch(self, train_loss: float, validation: Metrics, seconds: float) -> None:
        """Write the epoch down; one whose loss is not finite ends the training and is not kept."""
        epoch = self.finished_epochs + 1
        if math.isfinite(train_loss) and math.isfinite(validation.loss):
            self._keep(EpochRecord(epoch, train_loss, validation, self._rate(), seconds))
        else:
            self.progress.diverged = (
                f"epoch {epoch}: the loss is not finite (training {train_loss}, validation {validation.loss}); "
                "a lower --lr may help"
            )

    def _rate(self) -> float:
        config = self.config
        return learning_rate(self.finished_epochs + 1, config.lr, config.epochs, config.warmup_epochs)

    def _keep(self, record: EpochRecord) -> None:
        """The state goes first: everything else can be written from it again."""
        self.progress.history.append(record)
        is_best = self.progress.best is record
        if is_best:
            self.best_weights = self._copy_of_weights()
        if not self.writes:
            return
        self.run.write_state(
            {
                "model": self._copy_of_weights(),
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
