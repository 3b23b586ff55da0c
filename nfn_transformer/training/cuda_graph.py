"""The backward pass of batches of one size as a CUDA graph."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nfn_transformer.models.predictor import Features

if TYPE_CHECKING:
    from nfn_transformer.training.step import BackwardPass

_WARM_UP = 3


class GraphedBackwardPass:
    """A backward pass whose kernels are recorded once as a CUDA graph and from then on launched together.

    Small batches leave a GPU waiting for launches.
    """

    def __init__(self, backward: "BackwardPass"):
        self._backward = backward
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, features: Features, labels: Tensor, size: int) -> Tensor:
        """See `step.BackwardPass`."""
        if self._graph is None:
            with torch.cuda.device(labels.device):
                self._graph = self._record(features, labels, size)
        for fixed, tensor in zip(self._features.tensors(), features.tensors(), strict=True):
            fixed.copy_(tensor)
        self._labels.copy_(labels)
        self._graph.replay()
        # A batch of another size has left gradients of its own.
        for parameter, gradient in zip(self._backward.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._losses.clone()

    def _record(self, features: Features, labels: Tensor, size: int) -> torch.cuda.CUDAGraph:
        self._features, self._labels = features.map(torch.clone), labels.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._backward(self._features, self._labels, size)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: threads that read ahead pin memory at the same time.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._losses = self._backward(self._features, self._labels, size)
        self._gradients = [parameter.grad for parameter in self._backward.parameters]
        return graph
