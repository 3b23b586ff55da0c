"""Progress bar of the training of a zoo."""

import time
from collections.abc import Sequence

from tqdm import tqdm

from nfn_transformer.generation.hyperparameters import ZooRun
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.zoo_plan import ZooPlan


class ProgressBar:
    """Bar of network-epochs that shows runs, networks per second and the time left."""

    def __init__(self, plan: ZooPlan, data: TaskData):
        self._last_epoch = {run.number: plan.training(run, data).last_epoch(run.epochs) for run in plan.runs}
        self._runs, self._done, self._trained = len(plan.runs), 0.0, 0.0
        total = sum(self._last_epoch.values())
        self._bar = tqdm(total=total, unit="network-epoch", smoothing=0.05, dynamic_ncols=True, leave=False)
        self._start = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def skip(self, runs: Sequence[ZooRun]) -> None:
        """Count runs that are finished, or another process's, without an effect on the speed."""
        epochs = sum(self._last_epoch[run.number] for run in runs)
        self._bar.initial += epochs
        self._bar.n += epochs
        self._update(len(runs))

    def after_epoch(self, runs: Sequence[ZooRun]) -> None:
        """Count an epoch of each run."""
        share = sum(1 / self._last_epoch[run.number] for run in runs)
        self._trained += share
        self._bar.update(len(runs))
        self._update(share)

    def _update(self, done: float) -> None:
        self._done += done
        rate = self._trained / max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix_str(f"{self._done:.0f}/{self._runs} runs, {rate:.2f} networks/s")
