"""Measure of symmetry for any function of weights: the relative error of its equivariance or invariance."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from nfn_transformer.errors import type_of
from nfn_transformer.groups.element import Element
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.containers import (
    BlockWeights,
    FeedForwardWeights,
    NetworkWeights,
    TensorTree,
    TransformerWeights,
)
from nfn_transformer.weights.standard_containers import StandardTransformerWeights


@runtime_checkable
class Action(Protocol):
    """An element of a group, or anything else that maps weights to weights."""

    def act(self, weights: Any) -> Any:
        """Return the transformed weights."""


@runtime_checkable
class Group(Protocol):
    """A group of elements that act on weights of a spec, as `BlockElement`."""

    def sample(self, spec: Any, generator: torch.Generator) -> Action:
        """Return a random element."""


_Weights = BlockWeights | FeedForwardWeights | TransformerWeights | NetworkWeights | StandardTransformerWeights


def equivariance_error(
    function: Callable,
    elements: Group | Action | Iterable[Action],
    weights: _Weights,
    count: int = 3,
    seed: int = 0,
    dtype: torch.dtype | None = torch.float64,
) -> float:
    """Return the largest relative error max|f(g U) - g f(U)| / max|g f(U)| over elements g.

    ```python
    block = zoo.weights(torch.arange(8)).blocks[0]
    layer = nfn.EquivariantBlockLayer(block.spec, in_channels=1, out_channels=5)
    nfn.equivariance_error(layer, nfn.BlockElement, block)  # about 1e-15
    ```

    Outputs that are weights should move by g (equivariance). Tensors of numbers should stay (invariance).

    Args:
        function: f, a layer, a whole model or any other function of weights U.
        elements: a group, from which elements are sampled; or one element, or several.
        weights: U, of b networks and as many channels as f reads.
        count: of elements, if they are sampled.
        seed: of the sampled elements.
        dtype: of weights, elements and modules; None leaves them as they are.

    Raises:
        TypeError: `weights` are no weights, or `elements` no group and no elements.
    """
    if not isinstance(weights, TensorTree):
        expected = "BlockWeights, FeedForwardWeights, or weights of whole networks"
        raise TypeError(f"equivariance_error: weights: expected {expected}, got {type_of(weights)}")
    if not (isinstance(elements, Group | Action | Iterable)):
        raise TypeError(f"equivariance_error: elements: expected a group or elements, got {type_of(elements)}")
    if isinstance(elements, type):
        group, generator = cast(Group, elements), make_generator(seed, "equivariance error")
        actions = [group.sample(weights.spec, generator) for _ in range(count)]
    else:
        actions = [cast(Action, elements)] if hasattr(elements, "act") else list(cast(Iterable[Action], elements))
    if dtype is not None:
        weights, device = weights.to(dtype), weights.tensors()[0].device
        actions = [g.to(device, dtype) if isinstance(g, Element) else g for g in actions]
        function = copy.deepcopy(function).to(dtype) if isinstance(function, nn.Module) else function
    with torch.no_grad():
        output, errors = function(weights), [0.0]
        for g in actions:
            expected = g.act(output) if isinstance(output, TensorTree) else output
            errors.append(relative_error(function(g.act(weights)), expected))
    return max(errors, key=_nan_last)


def assert_equivariant(
    function: Callable,
    elements: Group | Action | Iterable[Action],
    weights: _Weights,
    tolerance: float = 1e-9,
    count: int = 3,
    seed: int = 0,
    dtype: torch.dtype | None = torch.float64,
) -> None:
    """Raise AssertionError if `equivariance_error` of the other arguments is above `tolerance` or NaN.

    ```python
    block = zoo.weights(torch.arange(8)).blocks[0]
    nfn.assert_equivariant(nfn.InvariantBlockLayer(block.spec, 1, 3), nfn.BlockElement, block)
    ```
    """
    error = equivariance_error(function, elements, weights, count, seed, dtype)
    if not error <= tolerance:
        raise AssertionError(f"equivariance error {error:.1e}, expected at most {tolerance:.1e}")


def relative_error(values: Tensor | TensorTree, expected: Tensor | TensorTree) -> float:
    """Return max|values - expected| / max|expected|, the largest over all tensors, or NaN if any is NaN.

    For a tensor of `expected` that is zero everywhere, the error is max|values|.

    Raises:
        ValueError: the shapes differ.
    """
    errors = [0.0]
    for a, b in zip(_tensors(values), _tensors(expected), strict=True):
        if a.shape != b.shape:
            raise ValueError(f"shape {tuple(a.shape)}, expected {tuple(b.shape)}")
        if a.numel():
            errors.append((a - b).abs().max().item() / (b.abs().max().item() or 1.0))
    return max(errors, key=_nan_last)


def _tensors(value: Tensor | TensorTree) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else value.tensors()


def _nan_last(error: float) -> float:
    return math.inf if math.isnan(error) else error
