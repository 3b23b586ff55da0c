"""Batches of a zoo that is larger than the memory of the device: read, one after another, from the mapped cache."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from nfn_transformer.models.predictor import Features
from nfn_transformer.training.feature_store import Read, Share, whole
from nfn_transformer.zoo.reading import Zoo


class StreamedZoo:
    """A zoo whose rows stay where they are, memory-mapped, and whose features are made batch by batch.

    Args:
        read: see `feature_store.Read`.
        zoo: the zoo, on the CPU.
        device: where the features go.
        n_workers: threads that read batches ahead; 0 reads each when it is wanted. Threads, as reading rows from a
            mapped file needs no Python, and nothing has to be sent from process to process.
    """

    def __init__(self, read: Read, zoo: Zoo, device: torch.device, n_workers: int):
        self._read, self._zoo, self._device, self._n_workers = read, zoo, device, n_workers

    def batches(self, order: Tensor, batch_size: int, share: Share = whole) -> Iterator[tuple[Features, Tensor]]:
        """Batches of the checkpoints in `order`, as `feature_store.FeatureStore.batches`."""
        indices = [share(index) for index in order.split(batch_size, dim=-1)]
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
        """Where it can go to a GPU without holding this thread up."""
        return tensor.pin_memory() if self._device.type == "cuda" else tensor

    def _on_device(self, index: Tensor, rows: Tensor, labels: Tensor) -> tuple[Features, Tensor]:
        rows, labels = rows.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
        with torch.no_grad():
            features = self._read(self._zoo.weights_of(rows))
        features = features.map(lambda tensor: tensor.unflatten(0, index.shape))
        return features.of_networks(self._pinned(index).to(self._device, non_blocking=True)), labels.view(index.shape)
