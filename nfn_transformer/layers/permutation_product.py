"""Product of NP and HNP layers with tensors of several axes, with its derivative written out.

Each output is a matrix times the own entries, plus matrices times means that keep one axis, plus one times means that
keep none. The derivative by the inputs is the same product by the transposed matrices, with sums in place of means. In
turn each entry gets its share of what comes back to a mean.

Means and sums have the numbers of all tensors side by side in front: [numbers, b, n]. So a matrix maps those of all
networks in one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_FEW = 4
"""Entries up to which adding slices is faster than a sum along the last dimension, which handles each by itself."""


@dataclass(frozen=True)
class ProductLayout:
    """Axes and sizes of the tensors of a product, which are [b, numbers, free axes...]."""

    free: tuple[tuple[int, ...], ...]
    """Free axes of each tensor, at most two, by their number."""
    inputs: tuple[int, ...]
    """Numbers of each input, for each entry of its free axes."""
    outputs: tuple[int, ...]
    """Numbers of each output."""

    @cached_property
    def axes(self) -> list[int]:
        """All axes."""
        return sorted({axis for free in self.free for axis in free})

    @cached_property
    def first(self) -> list[list[int]]:
        """For each axis the tensors that have it first, and at the end the tensors without an axis."""
        return [[i for i, free in enumerate(self.free) if free[:1] == (axis,)] for axis in self.axes] + [
            [i for i, free in enumerate(self.free) if not free]
        ]

    @cached_property
    def members(self) -> list[list[int]]:
        """For each axis all tensors that have it, at first those that have it first."""
        second = ([i for i, free in enumerate(self.free) if axis in free[1:]] for axis in self.axes)
        return [first + others for first, others in zip(self.first, second, strict=False)]

    @cached_property
    def order(self) -> list[int]:
        """All tensors, in the order of `first`."""
        return [index for tensors in self.first for index in tensors]

    @cached_property
    def pairs(self) -> list[int]:
        """Tensors of two free axes."""
        return [index for index, free in enumerate(self.free) if len(free) == 2]

    @cached_property
    def transposed(self) -> "ProductLayout":
        """The layout of the derivative by the inputs."""
        return ProductLayout(self.free, self.outputs, self.inputs)

    @cached_property
    def input_numbers(self) -> list[int]:
        """Numbers of all inputs in each list of `first`."""
        return [sum(self.inputs[index] for index in tensors) for tensors in self.first]

    @cached_property
    def output_numbers(self) -> list[int]:
        """Numbers of all outputs in each list of `first`."""
        return self.transposed.input_numbers


def permutation_product(layout: ProductLayout, tensors: Sequence[Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs [b, numbers, free axes...] of tensors.

    Args:
        layout: of the tensors.
        tensors: [b, numbers, free axes...].
        matrices: of each tensor of two free axes, of the means that keep each axis, and of those that keep none. The
            constants that are added come last. Tensors of an axis are in the order of `members`, all in `order`.
    """
    kind = tensors[0].device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            rounded = ([each.to(dtype) for each in group] for group in (tensors, matrices))
            return permutation_product(layout, *rounded)
    given = (*tensors, *matrices)
    results = _Product.apply(layout, *given) if torch.is_grad_enabled() else _forward(layout, given)
    return list(results[: len(tensors)])


class _Product(torch.autograd.Function):
    """Outputs, and then the inputs' means."""

    @staticmethod
    def forward(layout: ProductLayout, *given: Tensor) -> tuple[Tensor, ...]:
        return _forward(layout, given)

    @staticmethod
    def vmap(_, dims: tuple, layout: ProductLayout, *given: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        # Several models at once: by operations that PyTorch maps and differentiates itself.
        results = torch.vmap(lambda *each: _forward(layout, each), dims[1:])(*given)
        return results, (0,) * len(results)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        ctx.layout = layout = inputs[0]
        ctx.set_materialize_grads(False)  # hardly anything depends on the means
        ctx.save_for_backward(*inputs[1:-1], *output[len(layout.free) :])

    @staticmethod
    def backward(ctx, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        layout, saved, needs = ctx.layout, ctx.saved_tensors, ctx.needs_input_grad[1:]
        count, kinds = len(layout.free), len(layout.axes) + 1
        tensors, matrices, means = saved[:count], saved[count:-kinds], saved[-kinds:]
        gradients = [
            tensor.new_zeros(len(tensor), size, *tensor.shape[2:]) if gradient is None else gradient
            for gradient, tensor, size in zip(given[:count], tensors, layout.outputs, strict=True)
        ]
        sums = _reduced(layout.transposed, gradients, mean=False)
        results: list[Tensor | None] = [None] * len(needs)
        if any(needs[:count]):
            *back, last = (matrix.mT for matrix in matrices)
            totals = last @ sums[-1]
            if given[-1] is not None:
                totals = totals + given[-1]
            results[:count] = _spread(layout.transposed, gradients, sums, back, totals, given[count:-1], share=True)
        if any(needs[count:]):
            pairs = ((gradients[index].flatten(2), tensors[index].flatten(2)) for index in layout.pairs)
            of_means = (first.flatten(1) @ second.flatten(1).mT for first, second in zip(sums, means, strict=True))
            results[count:] = [*(_products(*pair) for pair in pairs), *of_means, sums[-1].sum(1)]
        return None, *results


def _forward(layout: ProductLayout, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the outputs, and then the inputs' means."""
    count = len(layout.free)
    tensors, matrices, constants = given[:count], given[count:-1], given[-1]
    means = _reduced(layout, tensors, mean=True)
    totals = torch.addmm(constants[:, None], matrices[-1], means[-1])
    return (*_spread(layout, tensors, means, matrices, totals), *means)


def _products(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum over b and n of the products [t, s] of tensors [b, t, n] and [b, s, n]."""
    (_, t, n), s = first.shape, second.shape[1]
    if t * s > n * (t + s):  # Products of each network would be larger than the tensors.
        return first.transpose(0, 1).flatten(1) @ second.transpose(0, 1).flatten(1).mT
    return torch.bmm(first, second.mT).sum(0)


def _reduced(layout: ProductLayout, tensors: Sequence[Tensor], mean: bool) -> list[Tensor]:
    """Return the means or sums [numbers, b, n] that keep each axis, and [numbers, b] of those that keep none."""
    kept: dict[tuple[int, int], Tensor] = {}
    for index, (tensor, free) in enumerate(zip(tensors, layout.free, strict=True)):
        if len(free) == 2:
            kept[index, free[0]] = _reduced_last(tensor, mean)
            kept[index, free[1]] = tensor.mean(2) if mean else tensor.sum(2)
        elif free:
            kept[index, free[0]] = tensor
    along, totals = [], []
    for axis, members, numbers in zip(layout.axes, layout.members, layout.input_numbers, strict=False):
        along.append(torch.cat([kept[index, axis].transpose(0, 1) for index in members]))
        totals.append(_reduced_last(along[-1].narrow(0, 0, numbers), mean))
    return [*along, torch.cat([*totals, *(tensors[index].mT for index in layout.first[-1])])]


def _reduced_last(tensor: Tensor, mean: bool) -> Tensor:
    """Return the means or sums over the last dimension."""
    count = tensor.shape[-1]
    if count > _FEW:
        return tensor @ tensor.new_full((count,), 1 / count if mean else 1)
    first, *rest = tensor.unbind(-1)
    return sum(rest, first) / (count if mean else 1)


def _spread(
    layout: ProductLayout,
    tensors: Sequence[Tensor],
    along: Sequence[Tensor],
    matrices: Sequence[Tensor],
    totals: Tensor,
    added: Sequence[Tensor | None] = (),
    share: bool = False,
) -> list[Tensor]:
    """Return the outputs.

    Args:
        layout: of the tensors.
        tensors: [b, numbers, free axes...].
        along: what `_reduced` returns of them.
        matrices: see `permutation_product`; no constants.
        totals: what all entries of an output get, [numbers, b], of all outputs in their `order`.
        added: what is added for each entry of an axis, if anything.
        share: divide what is repeated by how often.
    """
    batch, sizes = len(tensors[0]), layout.outputs
    *firsts, fixed = totals.split(layout.output_numbers)
    results = dict(zip(layout.first[-1], fixed.mT.split([sizes[i] for i in layout.first[-1]], dim=1), strict=True))
    parts: dict[tuple[int, int], Tensor] = {}
    for place, (axis, members, first) in enumerate(zip(layout.axes, layout.members, firsts, strict=True)):
        mapped = (matrices[len(layout.pairs) + place] @ along[place].flatten(1)).unflatten(1, along[place].shape[1:])
        more = added[place] if added else None
        mapped = mapped if more is None else mapped + more
        mapped.narrow(0, 0, len(first)).add_(first[..., None], alpha=1 / mapped.shape[2] if share else 1)
        each = mapped.transpose(0, 1).split([sizes[index] for index in members], dim=1)
        for index, part in zip(members, each, strict=True):
            parts[index, axis] = results[index] = part
    for index, matrix in zip(layout.pairs, matrices, strict=False):
        (n, m), (rows, columns) = tensors[index].shape[2:], (parts[index, axis] for axis in layout.free[index])
        product = torch.bmm(matrix.expand(batch, -1, -1), tensors[index].flatten(2)).unflatten(2, (n, m))
        product.add_(rows[..., None], alpha=1 / m if share else 1)
        results[index] = product.add_(columns[:, :, None], alpha=1 / n if share else 1)
    return [results[index] for index in range(len(layout.free))]
