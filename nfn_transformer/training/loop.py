"""The training loop: the published schedule, validation after every epoch, one run or several at once."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from tqdm import tqdm

from nfn_transformer.training.batches import read_features, shuffled_batches
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.training.run import STEP_THREADS, Run
from nfn_transformer.training.step import Step, keep_freed_memory


def train(
    runs: Sequence[Run],
    distributed: Distributed = SINGLE_PROCESS,
    stream: bool | None = None,
    n_workers: int = 0,
    progress: bool | None = None,
) -> None:
    """Train the epochs that are left of one run, or of several with one configuration but other seeds.

    Several runs are computed at once, each with its own batches, and end as they would alone, up to rounding. A run
    whose loss is not finite stops, and the others go on.

    Args:
        runs: with models of one shape on one device.
        distributed: the processes that share each batch of a single run among them.
        stream, n_workers: see `batches.read_features`.
        progress: show a progress bar on stderr; None shows one on a terminal alone.
    """
    keep_freed_memory()
    device = runs[0].model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    features = read_features(runs, stream, n_workers)
    for run in runs:
        run.fit_normalization(features[run])
    step, config = None, runs[0].config.training
    batches = [math.ceil(len(run.data.split.train) / config.batch_size) for run in runs]
    finished = sum(count * len(run.history.records) for run, count in zip(runs, batches, strict=True))
    hidden = (None if progress is None else not progress) if distributed.is_main else True
    with (
        tqdm(total=sum(batches) * config.epochs, initial=finished, unit=" batches", leave=False, disable=hidden) as bar,
        ExitStack() as after,
    ):
        if runs[0].config.versions.get(STEP_THREADS) == "1":
            after.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        for epoch, active in unfinished_epochs(runs):
            if step is None or step.runs != active:
                step = Step(active, distributed)
            bar.set_description(f"epoch {epoch}/{config.epochs}")
            start = time.perf_counter()
            for run in active:
                run.begin_epoch(epoch)
            total = torch.zeros(len(active), dtype=torch.float64, device=active[0].model.device)
            for inputs, labels, size in shuffled_batches(active, features, distributed):
                total += step(inputs, labels, size) * size
                bar.update(len(active))
            step.finish_epoch()
            losses = (distributed.sum(total) / len(active[0].order)).tolist()
            # The main process alone validates, for all.
            validations = [run.validate(features[run]) for run in active] if distributed.is_main else []
            seconds = time.perf_counter() - start
            losses, validations = distributed.broadcast((losses, validations))
            for run, loss, validation in zip(active, losses, validations, strict=True):
                run.finish_epoch(loss, validation, seconds)
            if validations:
                bar.set_postfix_str(f"validation {validations[0].summary}", refresh=False)


def unfinished_epochs(runs: Sequence[Run]) -> Iterator[tuple[int, list[Run]]]:
    """Yield each epoch that is left, counted from 1, and the runs that train it together.

    Runs that a kill left an epoch behind catch up first. Runs whose training sides differ in size take turns.
    """
    for size in sorted({len(run.data.split.train) for run in runs}):
        while left := [run for run in runs if len(run.data.split.train) == size and not run.is_over]:
            finished = min(len(run.history.records) for run in left)
            yield finished + 1, [run for run in left if len(run.history.records) == finished]
