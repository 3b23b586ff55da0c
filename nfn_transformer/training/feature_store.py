"""The features of a zoo's checkpoints on the device that trains: a batch is an index into a few tensors."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.free_memory import free_bytes
from nfn_transformer.models.predictor import Features
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

_CHUNK = 256

Read = Callable[[TransformerWeights], Features]
"""From weights [b, 1, ...] to what a predictor sees of them, as `models.predictor.Predictor.read`."""


Share = Callable[[Tensor], Tensor]
"""From the indices of a batch, along the last dimension, to some of them."""


def whole(batch: Tensor) -> Tensor:
    """All of a batch."""
    return batch


class FeatureStore:
    """Features and labels of chosen checkpoints, read once.

    Where networks of several sizes have features of several shapes, all have the largest one; the rest of it is NaN.

    Args:
        read: see `Read`.
        zoo: the zoo, on the CPU.
        index: the checkpoints that are wanted, int64 [n], each once.
        device: where the features go.
    """

    def __init__(self, read: Read, zoo: Zoo | MixedZoo, index: Tensor, device: torch.device):
        self._features = _room(read, zoo, index, device)
        start = 0
        # Shown only where it takes long, as for features that are more than the weights in another form.
        bar = tqdm(total=len(index), desc="reading networks", leave=False, disable=None, delay=2)
        with bar:
            for chunk in index.split(_CHUNK):
                for places, rows, of_size in zoo.by_size(chunk):
                    part = _features(read, of_size.weights_of(rows), device)
                    for stored, tensor in zip(self._features.tensors(), part.tensors(), strict=True):
                        corner = (start + places, *(slice(size) for size in tensor.shape[1:]))
                        stored[corner] = tensor
                start += len(chunk)
                bar.update(len(chunk))
        self._labels = zoo.labels[index].to(device)
        place = torch.full((len(zoo),), -1)
        place[index] = torch.arange(len(index))
        self._place = place.to(device)

    def batch(self, index: Tensor) -> tuple[Features, Tensor]:
        """Features [*shape, ...] and labels [*shape] of the checkpoints that `index` selects in the zoo.

        Args:
            index: int64 of any shape, on the store's device.
        """
        place = self._place.index_select(0, index.flatten())

        def select(stored: Tensor) -> Tensor:
            chosen = stored.index_select(0, place)
            return chosen if index.ndim == 1 else chosen.unflatten(0, index.shape)

        return self._features.map(select).of_networks(index), select(self._labels)

    def batches(self, order: Tensor, batch_size: int, share: Share = whole) -> Iterator[tuple[Features, Tensor]]:
        """Batches of the checkpoints in `order`, int64 [n] or, side by side for m models, [m, n]; along the last.

        `share` picks this process' part of each batch.
        """
        for index in order.to(self._place.device).split(batch_size, dim=-1):
            yield self.batch(share(index))


def _features(read: Read, weights: TransformerWeights, device: torch.device) -> Features:
    with torch.no_grad():
        return read(weights.to(device))


def _one_of_each_size(read: Read, zoo: Zoo | MixedZoo, index: Tensor, device: torch.device) -> list[Features]:
    chosen = zoo.one_of_each_size(index)
    return [_features(read, of_size.weights_of(rows), device) for _, rows, of_size in zoo.by_size(chosen)]


def _room(read: Read, zoo: Zoo | MixedZoo, index: Tensor, device: torch.device) -> Features:
    """Features [n, ...] to be filled, of the largest shapes."""
    examples = _one_of_each_size(read, zoo, index, device)
    shapes = [[tensor.shape[1:] for tensor in example.tensors()] for example in examples]
    largest = iter([tuple(map(max, zip(*of_tensor, strict=True))) for of_tensor in zip(*shapes, strict=True)])
    return examples[0].map(
        lambda tensor: tensor.new_full((len(index), *next(largest)), math.nan if len(examples) > 1 else 0)
    )


def fits(read: Read, zoo: Zoo | MixedZoo, count: int, device: torch.device) -> bool:
    """Whether the features of `count` checkpoints take no more than half of the memory that the device has free."""
    examples = _one_of_each_size(read, zoo, torch.arange(len(zoo)), torch.device("cpu"))
    size = max(sum(tensor.numel() * tensor.element_size() for tensor in example.tensors()) for example in examples)
    return count * size <= free_bytes(device) / 2


def union(indices: Sequence[Tensor]) -> Tensor:
    """The checkpoints in any of the indices, ascending."""
    return torch.cat(list(indices)).unique()
