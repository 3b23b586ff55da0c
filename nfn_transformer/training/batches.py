"""Batches of features and labels, from the memory of the device that trains or streamed from a zoo's mapped cache."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.models.predictor import Features
from nfn_transformer.resources import free_bytes
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

if TYPE_CHECKING:
    from nfn_transformer.training.run import Run

_CHUNK = 256

Batch = tuple[Features, Tensor]
"""Features [b, ...] and labels [b, ...] of b networks, or [m, b, ...] of b networks for each of m models."""

Featurize = Callable[..., Features]
"""From weights [b, 1, ...] and indices [b] in the zoo to features, as `models.predictor.Predictor.featurize`."""


class StoredFeatures:
    """Features and labels of chosen checkpoints, computed once and kept on the device: a batch is an index into them.

    Where networks of several sizes have features of several shapes, all have the largest one; the rest of it is NaN.

    Args:
        featurize: see `Featurize`.
        zoo: the zoo, on the CPU.
        index: the checkpoints that are wanted, int64 [n], each once.
        device: for the features.
    """

    def __init__(self, featurize: Featurize, zoo: Zoo | MixedZoo, index: Tensor, device: torch.device):
        with torch.no_grad():
            examples = [featurize(weights.to(device)) for weights in zoo.one_of_each_size(index)]
        shapes = [[tensor.shape[1:] for tensor in example.tensors()] for example in examples]
        largest = iter([tuple(map(max, zip(*of_tensor, strict=True))) for of_tensor in zip(*shapes, strict=True)])
        filling = math.nan if len(examples) > 1 else 0
        self._features = examples[0].map(lambda tensor: tensor.new_full((len(index), *next(largest)), filling))
        start = 0
        # Shown only where it takes long, as for features that are more than the weights in another form.
        with (
            tqdm(total=len(index), desc="reading networks", leave=False, disable=None, delay=2) as bar,
            torch.no_grad(),
        ):
            for chunk in index.split(_CHUNK):
                for positions, rows, of_size in zoo.by_size(chunk):
                    part = featurize(of_size.weights_of(rows).to(device), chunk[positions])
                    for stored, tensor in zip(self._features.tensors(), part.tensors(), strict=True):
                        target: tuple[Tensor | slice, ...] = (start + positions, *map(slice, tensor.shape[1:]))
                        stored[target] = tensor
                start += len(chunk)
                bar.update(len(chunk))
        self._labels = zoo.labels[index].to(device)
        positions = torch.full((len(zoo),), -1)
        positions[index] = torch.arange(len(index))
        self._positions = positions.to(device)

    def batches(self, order: Tensor, batch_size: int, distributed: Distributed = SINGLE_PROCESS) -> Iterator[Batch]:
        """Yield this process' part of each batch of the checkpoints in `order`, int64 [n], or [m, n] for m models."""
        for index in order.to(self._positions.device).split(batch_size, dim=-1):
            yield self.batch(distributed.share(index))

    def batch(self, index: Tensor) -> Batch:
        """Return features and labels of the checkpoints that `index`, [b] or [m, b] on the device, selects."""
        chosen = self._positions.index_select(0, index.flatten())
        features = self._features.map(lambda stored: stored.index_select(0, chosen))
        labels = self._labels.index_select(0, chosen)
        if index.ndim > 1:
            features = features.map(lambda tensor: tensor.unflatten(0, index.shape))
        return replace(features, network=index), labels.view(*index.shape, *labels.shape[1:])


class StreamedFeatures:
    """Features of a zoo whose rows stay where they are, memory-mapped; they are computed batch by batch.

    Args:
        featurize: see `Featurize`.
        zoo: the zoo, on the CPU.
        device: for the features.
        n_workers: threads that read batches ahead; 0 reads each when it is wanted. Threads, as reading rows from a
            mapped file needs no Python, and nothing has to be sent from process to process.
    """

    def __init__(self, featurize: Featurize, zoo: Zoo, device: torch.device, n_workers: int):
        self._featurize, self._zoo, self._device, self._n_workers = featurize, zoo, device, n_workers

    def batches(self, order: Tensor, batch_size: int, distributed: Distributed = SINGLE_PROCESS) -> Iterator[Batch]:
        """Yield batches as `StoredFeatures.batches`."""
        indices = [distributed.share(index) for index in order.split(batch_size, dim=-1)]
        if self._n_workers == 0:
            for index in indices:
                yield self._on_device(index, *self._rows(index))
            return
        with ThreadPoolExecutor(self._n_workers, "read-ahead") as pool:
            ahead: deque = deque()
            try:
                for index in indices:
                    ahead.append((index, pool.submit(self._rows, index)))
                    if len(ahead) > 2 * self._n_workers:
                        index, rows = ahead.popleft()
                        yield self._on_device(index, *rows.result())
                for index, rows in ahead:
                    yield self._on_device(index, *rows.result())
            finally:
                pool.shutdown(cancel_futures=True)

    def _rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        chosen = index.flatten()
        rows, labels = self._zoo.rows.index_select(0, chosen), self._zoo.labels[chosen]
        return self._pinned(rows), self._pinned(labels)

    def _pinned(self, tensor: Tensor) -> Tensor:
        """Return a tensor from where it can go to a GPU without holding this thread up."""
        return tensor.pin_memory() if self._device.type == "cuda" else tensor

    def _on_device(self, index: Tensor, rows: Tensor, labels: Tensor) -> Batch:
        rows, labels = rows.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
        with torch.no_grad():
            features = self._featurize(self._zoo.weights_of(rows))
        features = features.map(lambda tensor: tensor.unflatten(0, index.shape))
        network = self._pinned(index).to(self._device, non_blocking=True)
        return replace(features, network=network), labels.view(*index.shape, *labels.shape[1:])


def read_features(
    runs: Sequence["Run"], stream: bool | None = None, n_workers: int = 0
) -> dict["Run", StoredFeatures | StreamedFeatures]:
    """Return the features of each run's training and validation sides; runs on one zoo share them.

    Runs with a consensus of their own training side share none.

    Args:
        runs: with models of one shape on one device.
        stream: whether features are streamed; None streams what does not fit into the device's memory. Features that
            are slow to compute are always stored.
        n_workers: threads that read streamed batches ahead.
    """
    by_zoo: dict[int, StoredFeatures | StreamedFeatures] = {}
    model = runs[0].model
    if model.needs_consensus:
        return {run: _features_with_consensus(run) for run in runs}
    for zoo in {id(run.data.zoo): run.data.zoo for run in runs}.values():
        splits = [run.data.split for run in runs if run.data.zoo is zoo]
        index = torch.cat([side for split in splits for side in (split.train, split.validation)]).unique()
        streams = stream
        if streams is None:
            with torch.no_grad():
                examples = [model.featurize(weights).tensors() for weights in zoo.one_of_each_size(index)]
            size = max(sum(tensor.numel() * tensor.element_size() for tensor in example) for example in examples)
            streams = len(index) * size > free_bytes(model.device) / 2
        if streams and not model.is_slow_to_featurize and isinstance(zoo, Zoo):
            by_zoo[id(zoo)] = StreamedFeatures(model.featurize, zoo, model.device, n_workers)
        else:
            by_zoo[id(zoo)] = StoredFeatures(model.featurize, zoo, index, model.device)
    return {run: by_zoo[id(run.data.zoo)] for run in runs}


def _features_with_consensus(run: "Run") -> StoredFeatures:
    """Take the votes of a run's training side, and return the features of its two sides."""
    zoo, split, model = run.data.zoo, run.data.split, run.model
    consensus = model.consensus
    assert consensus is not None, "the model needs one"
    consensus.fit(zoo, split.train, run.config.seed, are_loaded=bool(run.history.records))
    index = torch.cat([split.train, split.validation]).unique()
    features = StoredFeatures(model.featurize, zoo, index, model.device)
    consensus.forget_answers()
    return features


def shuffled_batches(
    runs: Sequence["Run"],
    features: Mapping["Run", StoredFeatures | StreamedFeatures],
    distributed: Distributed = SINGLE_PROCESS,
) -> Iterator[tuple[Features, Tensor, int]]:
    """Yield this process' features and labels of each batch of an epoch, and the size of the whole batch.

    Batches are [b, ...] of one run or [m, b, ...] of m runs, each in its own order.
    """
    stored, batch_size = [features[run] for run in runs], runs[0].config.training.batch_size
    if all(of_run is stored[0] for of_run in stored):
        order = runs[0].order if len(runs) == 1 else torch.stack([run.order for run in runs])
        batches = stored[0].batches(order, batch_size, distributed)
    else:
        of_runs = (of.batches(run.order, batch_size, distributed) for of, run in zip(stored, runs, strict=True))
        batches = map(_stack, zip(*of_runs, strict=True))
    for (inputs, labels), size in zip(batches, map(len, runs[0].order.split(batch_size)), strict=True):
        yield inputs, labels, size


def _stack(batches: Sequence[Batch]) -> Batch:
    columns = zip(*(features.tensors() for features, _ in batches), strict=True)
    return batches[0][0].map(lambda _: torch.stack(next(columns))), torch.stack([labels for _, labels in batches])
