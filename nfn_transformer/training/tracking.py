"""Trackers, which are given a run's metrics besides its directory: the screen, and Weights & Biases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from nfn_transformer.errors import UserError
from nfn_transformer.extras import extra
from nfn_transformer.training.history import Record


class Tracker(Protocol):
    """Receiver of a run's metrics."""

    def log(self, record: Record) -> None:
        """Take one finished epoch or round."""

    def summarize(self, values: dict[str, float]) -> None:
        """Take the final results."""

    def finish(self, exit_code: int) -> None:
        """Close the run."""


@dataclass(frozen=True)
class ScreenTracker:
    """Prints a line for each epoch, and for some of many rounds."""

    total: int
    """how many epochs or rounds there will be at most"""
    prefix: str = ""
    """of each line"""

    def log(self, record: Record) -> None:
        """Print one epoch or round."""
        if line := record.line(self.total):
            tqdm.write(self.prefix + line)

    def summarize(self, values: dict[str, float]) -> None:
        """Print nothing: the command prints the results of all its runs in the end."""

    def finish(self, exit_code: int) -> None:
        """Print nothing."""


class WandbTracker:
    """Weights & Biases, imported only when a run asks for it; `WANDB_MODE=offline` keeps everything on this machine.

    With `beside_others` further runs of this process may be logged at the same time.
    """

    def __init__(self, project: str, entity: str | None, config: dict, folder: Path, beside_others: bool = False):
        with extra("wandb", "--wandb True"):
            import wandb
        known = folder / "wandb_run_id.txt"  # so that a resumed run goes on under its own name at Weights & Biases
        run_id = known.read_text().strip() if known.is_file() else None
        try:
            self._run = wandb.init(
                project=project,
                entity=entity,
                config=config,
                name=folder.name,
                dir=str(folder),
                id=run_id,
                resume="allow",
                reinit="create_new" if beside_others else None,
            )
        except wandb.errors.Error as error:
            raise UserError(f"--wandb True: {error} (WANDB_MODE=offline needs no account)") from None
        known.write_text(self._run.id)

    def log(self, record: Record) -> None:
        """Log one epoch or round."""
        self._run.log(record.row())

    def summarize(self, values: dict[str, float]) -> None:
        """Log the final results."""
        self._run.summary.update(values)

    def finish(self, exit_code: int) -> None:
        """Close the run."""
        self._run.finish(exit_code=exit_code)
