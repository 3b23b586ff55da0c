"""Progress of the training of a zoo: a bar on a terminal, a line now and then in a file."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from nfn_transformer.generation.hyperparameters import ZooRun
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.zoo_plan import ZooPlan

_SECONDS_BETWEEN_LINES = 60.0


class LineNowAndThen:
    """Printer of progress on stderr that is no terminal: a line a minute, where a bar would fill a log."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, text: str) -> None:
        """Print the text unless another one was printed within the last minute, or stderr is a terminal."""
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES and not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)
            self._last = now


class ProgressBar:
    """Progress in network-epochs: runs, networks per second and the time left."""

    def __init__(self, plan: ZooPlan, data: TaskData):
        self._last_epoch = {run.number: plan.training(run, data).last_epoch(run.epochs) for run in plan.runs}
        self._runs, self._done, self._trained = len(plan.runs), 0.0, 0.0
        total, unit = sum(self._last_epoch.values()), "network-epoch"
        self._bar = tqdm(total=total, unit=unit, smoothing=0.05, dynamic_ncols=True, leave=False, disable=None)
        self._lines = LineNowAndThen()
        self._start = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def skip(self, runs: Sequence[ZooRun]) -> None:
        """Count runs that are finished, or another process's, without an effect on the speed."""
        epochs = sum(self._last_epoch[run.number] for run in runs)
        if not self._bar.disable:
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
        text = f"{self._done:.0f}/{self._runs} runs, {rate:.2f} networks/s"
        self._bar.set_postfix_str(text)
        left = f", about {tqdm.format_interval((self._runs - self._done) / rate)} left" if rate else ""
        self._lines.show(text + left)
