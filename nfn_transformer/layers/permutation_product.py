"""Product of NP and HNP layers with tensors of several axes, with its derivative written out.

Each output is a matrix times the own entries, plus matrices times sums that keep one axis, plus one times sums that
keep none. The derivative by the inputs is the same product by the transposed matrices. So either direction reads its
tensors to sum them, writes what repeated numbers add up to, and adds the matrix product in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_CACHED = 2**20
"""Bytes of a tensor that are handled at once on a CPU. With as many of a second one they stay in its L2 cache."""
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
    def members(self) -> dict[int, list[int]]:
        """Tensors that have an axis."""
        axes = sorted({axis for free in self.free for axis in free})
        return {axis: [index for index, free in enumerate(self.free) if axis in free] for axis in axes}

    @cached_property
    def pairs(self) -> list[int]:
        """Tensors of two free axes."""
        return [index for index, free in enumerate(self.free) if len(free) == 2]

    @cached_property
    def transposed(self) -> "ProductLayout":
        """The layout of the derivative by the inputs."""
        return ProductLayout(self.free, self.outputs, self.inputs)


def permutation_product(layout: ProductLayout, tensors: Sequence[Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs [b, numbers, free axes...] of tensors.

    Args:
        layout: of the tensors.
        tensors: [b, numbers, free axes...].
        matrices: of each tensor of two free axes, of the sums that keep each axis, and of those that keep none. The
            constants that are added come last.
    """
    kind, given = tensors[0].device.type, [*tensors, *matrices]
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        given = [each.to(torch.get_autocast_dtype(kind)) for each in given]
        with torch.autocast(kind, enabled=False):
            return list(_Product.apply(layout, *given)[: len(tensors)])
    return list(_Product.apply(layout, *given)[: len(tensors)])


class _Product(torch.autograd.Function):
    """Outputs, and then the inputs' sums."""

    @staticmethod
    def forward(layout: ProductLayout, *given: Tensor) -> tuple[Tensor, ...]:
        return _forward(layout, given, True)

    @staticmethod
    def vmap(_, dims: tuple, layout: ProductLayout, *given: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        # Several models at once: by operations that PyTorch maps and differentiates itself.
        results = torch.vmap(lambda *each: _forward(layout, each, False), dims[1:])(*given)
        return results, (0,) * len(results)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        ctx.layout = layout = inputs[0]
        ctx.set_materialize_grads(False)  # hardly anything depends on the sums
        ctx.save_for_backward(*inputs[1:-1], *output[len(layout.free) :])

    @staticmethod
    def backward(ctx, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        layout, saved, needs = ctx.layout, ctx.saved_tensors, ctx.needs_input_grad[1:]
        count, kinds = len(layout.free), len(layout.members) + 1
        tensors, matrices, sums = saved[:count], saved[count:-kinds], saved[-kinds:]
        gradients = [
            tensor.new_zeros(len(tensor), size, *tensor.shape[2:]) if gradient is None else gradient
            for gradient, tensor, size in zip(given[:count], tensors, layout.outputs, strict=True)
        ]
        summed = _sums(layout.transposed, gradients)
        results: list[Tensor | None] = [None] * len(needs)
        if any(needs[:count]):
            *back, last = (matrix.mT for matrix in matrices)
            totals = summed[-1] @ last.mT
            if given[-1] is not None:
                totals = totals + given[-1]
            results[:count] = _spread(
                layout.transposed, gradients, summed[:-1], back, totals, not torch.is_grad_enabled(), given[count:-1]
            )
        if any(needs[count:]):
            pairs = [(gradients[index].flatten(2), tensors[index].flatten(2)) for index in layout.pairs]
            pairs += zip(summed[:-1], sums[:-1], strict=True)
            results[count:] = [*(_products(*pair) for pair in pairs), summed[-1].mT @ sums[-1], summed[-1].sum(0)]
        return None, *results


def _forward(layout: ProductLayout, given: Sequence[Tensor], in_pieces: bool) -> tuple[Tensor, ...]:
    """Return the outputs, and then the inputs' sums; arguments as of `_spread`."""
    count = len(layout.free)
    tensors, matrices, constants = given[:count], given[count:-1], given[-1]
    sums = _sums(layout, tensors)
    totals = torch.addmm(constants, sums[-1], matrices[-1].mT)
    return (*_spread(layout, tensors, sums[:-1], matrices[:-1], totals, in_pieces), *sums)


def _products(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum over b and n of the products [t, s] of tensors [b, t, n] and [b, s, n]."""
    (_, t, n), s = first.shape, second.shape[1]
    if t * s > n * (t + s):  # Products of each network would be larger than the tensors.
        return first.transpose(0, 1).flatten(1) @ second.transpose(0, 1).flatten(1).mT
    return torch.bmm(first, second.mT).sum(0)


def _sums(layout: ProductLayout, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums [b, numbers, n] that keep each axis, of all tensors that have it, and those that keep none."""
    kept = {(index, axis): tensors[index] for index, free in enumerate(layout.free) for axis in free}
    for index in layout.pairs:
        pieces = tensors[index].split(_networks_at_once(tensors[index]))
        both = [(piece.sum(2), _sum_of_last(piece)) for piece in pieces]
        first, second = layout.free[index]
        kept[index, second], kept[index, first] = (_joined(sums) for sums in zip(*both, strict=True))
    along, totals = [], list(tensors)
    for axis, members in layout.members.items():
        along.append(torch.cat([kept[index, axis] for index in members], dim=1))
        parts = _sum_of_last(along[-1]).split([layout.inputs[index] for index in members], dim=1)
        for index, part in zip(members, parts, strict=True):
            totals[index] = part
    return [*along, torch.cat(totals, dim=1)]


def _networks_at_once(tensor: Tensor) -> int:
    """Return how many networks' numbers stay in a CPU's cache."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return max(1, len(tensor))
    return max(1, _CACHED * len(tensor) // max(1, tensor.nbytes))


def _joined(pieces: tuple[Tensor, ...]) -> Tensor:
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _sum_of_last(tensor: Tensor) -> Tensor:
    """Return the sums over the last dimension."""
    count = tensor.shape[-1]
    if count > _FEW:
        return tensor @ tensor.new_ones(count)
    first, *rest = tensor.unbind(-1)
    return sum(rest, first)


def _spread(
    layout: ProductLayout,
    tensors: Sequence[Tensor],
    sums: Sequence[Tensor],
    matrices: Sequence[Tensor],
    totals: Tensor,
    in_pieces: bool,
    along: Sequence[Tensor | None] = (),
) -> list[Tensor]:
    """Return the outputs.

    Args:
        layout: of the tensors.
        tensors: [b, numbers, free axes...].
        sums: those of the tensors that keep an axis.
        matrices: see `permutation_product`; no constants.
        totals: what all entries of an output get, [b, numbers], of all outputs side by side.
        in_pieces: on a CPU, few networks at once.
        along: what is added for each entry of an axis, if anything.
    """
    batch, count = len(totals), len(layout.pairs)
    results = list(totals.split(layout.outputs, dim=1))
    repeated: dict[int, list[Tensor]] = {index: [] for index in layout.pairs}
    for place, (axis, members) in enumerate(layout.members.items()):
        mapped = torch.bmm(matrices[count + place].expand(batch, -1, -1), sums[place])
        more = along[place] if along else None
        mapped = mapped if more is None else mapped + more
        parts = mapped.split([layout.outputs[index] for index in members], dim=1)
        for index, part in zip(members, parts, strict=True):
            if index not in repeated:
                results[index] = results[index][..., None] + part
            elif axis == layout.free[index][0]:
                repeated[index].append((results[index][..., None] + part)[..., None])
            else:
                repeated[index].append(part[:, :, None])
    for (index, parts), matrix in zip(repeated.items(), matrices[:count], strict=True):
        results[index] = _matrix_product(matrix, tensors[index], in_pieces, *parts)
    return results


def _matrix_product(matrix: Tensor, tensor: Tensor, in_pieces: bool, *added: Tensor) -> Tensor:
    """Return the matrix [t, s] times a tensor [b, s, n, m], plus two tensors that are repeated to [b, t, n, m]."""
    batch, axes = len(tensor), tensor.shape[2:]
    at_once = _networks_at_once(tensor) if in_pieces else batch
    first, second = added
    if at_once >= batch:
        product = torch.bmm(matrix.expand(batch, -1, -1), tensor.flatten(2))
        return product.unflatten(2, axes).add_(first).add_(second)
    result = tensor.new_empty(batch, len(matrix), *axes)
    tensors = (result.flatten(2), tensor.flatten(2), result, first, second)
    matrix = matrix.expand(at_once, -1, -1)
    for product, piece, whole, *of_piece in zip(*(each.split(at_once) for each in tensors), strict=True):
        product.baddbmm_(matrix[: len(piece)], piece, beta=0)  # into the result itself
        whole.add_(of_piece[0]).add_(of_piece[1])
    return result
