"""Elements of the groups that act on weights: multiplied by `@`, inverted by `~`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch

from nfn_transformer.weights.containers import TensorTree


@dataclass(frozen=True)
class Element(TensorTree, ABC):
    """Base of group elements: `(g @ f).act(U)` is `g.act(f.act(U))`, and `(~g).act(g.act(U))` is U."""

    @abstractmethod
    def __matmul__(self, first: Self) -> Self:
        """Return the product that acts as `first` and then as this element."""

    @abstractmethod
    def __invert__(self) -> Self:
        """Return the element that undoes this one."""

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Return the element on a device, its permutations in int64 and all else in `dtype`."""
        return self.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype))


@dataclass(frozen=True)
class ProductElement(Element):
    """Base of elements of a product of groups: each field is an element, a tuple of elements, or None.

    The parts of a product multiply and invert by themselves. None is the identity.
    """

    def __matmul__(self, first: Self) -> Self:
        return self._map_parts(lambda g, f: f if g is None else g if f is None else g @ f, first)

    def __invert__(self) -> Self:
        return self._map_parts(lambda g: None if g is None else ~g)

    def _map_parts(self, function: Callable, *others: Self) -> Self:
        """Return the element of `function(part, *parts)` over the parts of this element and those of `others`."""
        parts = {}
        for field in fields(self):
            values = [getattr(element, field.name) for element in (self, *others)]
            if isinstance(values[0], tuple):
                parts[field.name] = tuple(function(*items) for items in zip(*values, strict=True))
            else:
                parts[field.name] = function(*values)
        return replace(self, **parts)
