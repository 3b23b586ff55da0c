"""The training loop: published schedule, validation every epoch, one run or several of one configuration at once."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.layers.scaling import Reiterable
from nfn_transformer.models.predictor import Features
from nfn_transformer.training.config import TrainingConfig
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.training.feature_store import FeatureStore, fits, union
from nfn_transformer.training.host_memory import keep_freed_memory
from nfn_transformer.training.metrics import Metrics, measure_logits
from nfn_transformer.training.predictions import EVALUATION_BATCH, predict_logits_of_features
from nfn_transformer.training.progress import Progress
from nfn_transformer.training.streaming import StreamedZoo
from nfn_transformer.training.trainer import Trainer
from nfn_transformer.training.update import Update
from nfn_transformer.zoo.reading import Zoo

Source = FeatureStore | StreamedZoo


@dataclass(frozen=True)
class Feeding:
    """How batches come: stream, whether from the mapped zoo rather than from the device's memory (where None, if it
    does not fit there); n_workers, threads that read ahead then."""

    stream: bool | None = None
    n_workers: int = 0


IN_MEMORY_IF_IT_FITS = Feeding()


def train(
    trainers: Sequence[Trainer], feeding: Feeding = IN_MEMORY_IF_IT_FITS, processes: Distributed = SINGLE_PROCESS
) -> list[Progress]:
    """Train the epochs that are left of one run, or of several with one configuration but other seeds.

    Several runs are computed at once, each with its own batches, and end as they would alone, up to rounding; one whose
    loss is not finite stops and leaves the others alone. Those whose training sides are not of one size take turns.

    Args:
        trainers: of models of one shape on one device.
        feeding: see there.
        processes: that share each batch of a single run among them.

    Raises:
        UserError: the configuration wants what this machine cannot do.
    """
    keep_freed_memory()
    sources = _sources(trainers, feeding)
    for trainer in trainers:
        _learn_scales(trainer, sources[id(trainer.data.zoo)])
    config = trainers[0].config
    total = sum(trainer.batches * config.epochs for trainer in trainers)
    initial = sum(trainer.batches * trainer.finished_epochs for trainer in trainers)
    hidden = None if processes.is_main else True  # None: only on a terminal
    with tqdm(total=total, initial=initial, unit=" batches", leave=False, disable=hidden) as bar:
        for _, group in itertools.groupby(sorted(trainers, key=_train_size), _train_size):
            _train_together(list(group), sources, config, processes, bar)
    return [trainer.progress for trainer in trainers]


def _learn_scales(trainer: Trainer, source: Source) -> None:
    """Before the first epoch; a training that goes on has its scales among its weights."""
    if trainer.model.needs_normalization and trainer.finished_epochs == 0:
        train = trainer.data.split.train
        trainer.model.fit_normalization(
            Reiterable(lambda: (features for features, _ in source.batches(train, EVALUATION_BATCH)))
        )


def _train_size(trainer: Trainer) -> int:
    return len(trainer.data.split.train)


def _sources(trainers: Sequence[Trainer], feeding: Feeding) -> dict[int, Source]:
    """By the id of a zoo: the features of its training and validation sides, whosever they are."""
    zoos = {id(trainer.data.zoo): trainer.data.zoo for trainer in trainers}
    return {key: _source(zoo, [t for t in trainers if t.data.zoo is zoo], feeding) for key, zoo in zoos.items()}


def _source(zoo: Zoo, trainers: Sequence[Trainer], feeding: Feeding) -> Source:
    index = union([side for t in trainers for side in (t.data.split.train, t.data.split.validation)])
    read, device = trainers[0].model.featurize, trainers[0].device
    stream = not fits(read, zoo, len(index), device) if feeding.stream is None else feeding.stream
    stream = stream and not trainers[0].model.is_slow_to_featurize
    return StreamedZoo(read, zoo, device, feeding.n_workers) if stream else FeatureStore(read, zoo, index, device)


def _train_together(
    trainers: list[Trainer], sources: dict[int, Source], config: TrainingConfig, processes: Distributed, bar: tqdm
) -> None:
    learning, update = [], None
    while left := [trainer for trainer in trainers if not trainer.is_over]:
        # A kill may have come when some had written an epoch down and others had not: those catch up first.
        last = min(trainer.finished_epochs for trainer in left)
        active = [trainer for trainer in left if trainer.finished_epochs == last]
        if active != learning:
            learning, update = active, Update(active, processes)
        bar.set_description(f"epoch {last + 1}/{config.epochs}")
        own = [sources[id(trainer.data.zoo)] for trainer in active]
        start = time.perf_counter()
        losses = _train_epoch(active, own, update, processes, bar)
        validations = [
            _validate(trainer, source) if processes.is_main else None
            for trainer, source in zip(active, own, strict=True)
        ]
        seconds = time.perf_counter() - start
        found = processes.broadcast(list(zip(losses, validations, strict=True)))
        for trainer, (loss, validation) in zip(active, found, strict=True):
            trainer.finish_epoch(loss, validation, seconds)


def _train_epoch(
    trainers: list[Trainer], sources: list[Source], update: Update, processes: Distributed, bar: tqdm
) -> list[float]:
    """One pass over each training side, in an order of its own; the mean losses."""
    for trainer in trainers:
        trainer.begin_epoch()
    update.begin_epoch()
    batch_size, size = trainers[0].config.batch_size, _train_size(trainers[0])
    total = torch.zeros(len(trainers), dtype=torch.float64, device=trainers[0].device)
    starts = range(0, size, batch_size)
    for start, (features, labels) in zip(starts, _batches(trainers, sources, batch_size, processes), strict=True):
        batch = min(batch_size, size - start)
        total += update.step(features, labels, batch) * batch
        bar.update(len(trainers))
    update.end_epoch()
    return (processes.sum(total) / size).tolist()


def _batches(
    trainers: list[Trainer], sources: list[Source], batch_size: int, processes: Distributed
) -> Iterator[tuple[Features, Tensor]]:
    """Features and labels [b, ...] of one trainer's batches, or [m, b, ...] of m trainers'."""
    orders = [trainer.order() for trainer in trainers]
    if len(trainers) == 1:
        return sources[0].batches(orders[0], batch_size, processes.share)
    if all(source is sources[0] for source in sources):
        return sources[0].batches(torch.stack(orders), batch_size, processes.share)
    own = (source.batches(order, batch_size, processes.share) for source, order in zip(sources, orders, strict=True))
    return (_stacked(batches) for batches in zip(*own, strict=True))


def _stacked(batches: Sequence[tuple[Features, Tensor]]) -> tuple[Features, Tensor]:
    columns = zip(*(features.tensors() for features, _ in batches), strict=True)
    return batches[0][0].map(lambda _: torch.stack(next(columns))), torch.stack([labels for _, labels in batches])


def _validate(trainer: Trainer, source: Source) -> Metrics:
    index = trainer.data.split.validation
    batches = (features for features, _ in source.batches(index, EVALUATION_BATCH))
    return measure_logits(predict_logits_of_features(trainer.model, batches), trainer.data.zoo.labels[index])
