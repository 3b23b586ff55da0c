"""Logging to Weights & Biases, which is imported only when a run asks for it."""

import os
from pathlib import Path
from typing import Protocol

from nfn_transformer.errors import UserError


class Tracker(Protocol):
    """Where a run's metrics go besides its directory."""

    def log(self, values: dict[str, float]) -> None:
        """One epoch's metrics."""

    def summarize(self, values: dict[str, float]) -> None:
        """The final results."""

    def finish(self, exit_code: int) -> None:
        """The run is over."""


class NoTracker:
    """Nowhere."""

    def log(self, values: dict[str, float]) -> None: ...

    def summarize(self, values: dict[str, float]) -> None: ...

    def finish(self, exit_code: int) -> None: ...


class WandbTracker:
    """Weights & Biases; `WANDB_MODE=offline` keeps everything on this machine.

    With `beside_others` further runs of this process may be logged at the same time.
    """

    def __init__(self, project: str, entity: str | None, config: dict, folder: Path, beside_others: bool = False):
        try:
            import wandb
        except ImportError:
            raise UserError("--wandb True needs the package wandb: pip install wandb") from None
        known = folder / "wandb_run_id.txt"  # so that a resumed run goes on in the same place there
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

    def log(self, values: dict[str, float]) -> None:
        self._run.log(values)

    def summarize(self, values: dict[str, float]) -> None:
        self._run.summary.update(values)

    def finish(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)


def wanted(flag: bool | None) -> bool:
    """Whether to log: as the flag says; without it, where a sweep agent started the command."""
    return "WANDB_SWEEP_ID" in os.environ if flag is None else flag
