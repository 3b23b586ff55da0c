"""Many random elements of the symmetry group at once, one for each network of a batch."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from nfn_transformer.groups.monomial import MonomialElement
from nfn_transformer.groups.published import BlockElement
from nfn_transformer.weights.containers import BlockWeights, TensorTree, TransformerWeights
from nfn_transformer.weights.spec import BlockSpec, TransformerSpec

MOST_CONDITION = 1e4

_Tree = TypeVar("_Tree", bound=TensorTree)


@runtime_checkable
class ActingOn(Protocol[_Tree]):
    """Element of a group that acts on such weights."""

    def act(self, weights: _Tree) -> _Tree:
        """Return the transformed weights."""


def transform_each(
    weights: TransformerWeights,
    spec: TransformerSpec,
    scale: float,
    generator: torch.Generator,
    classifier: bool = False,
) -> TransformerWeights:
    """Return the n networks [n, 1, ...], each transformed by an element of its own; their functions stay.

    ```python
    copies = nfn.transform_each(zoo.weights(torch.arange(8)), zoo.spec, 1.0, torch.Generator().manual_seed(0))
    ```

    Every block has its own uniform permutations of heads and neurons, and M and N with entries uniform in
    [-scale, scale]. Matrices are drawn again if their condition number exceeds 1e4. The embedding stays. The result
    is computed in float64 and has the dtype of the weights.

    Args:
        weights: of networks with the sizes of `spec`, on the CPU.
        scale: above 0.
        generator: of the draws, on the CPU.
        classifier: permute and scale the classifier's hidden neurons, too (see `groups.monomial`).
    """
    blocks = []
    for block, block_spec in zip(weights.blocks, spec.blocks, strict=True):
        elements = sample_uniform(block_spec, weights.batch, scale, generator)
        blocks.append(act_each(elements, block.to(torch.float64)).to(block.W_A.dtype))
    moved = replace(weights, blocks=tuple(blocks))
    if not classifier:
        return moved
    samples = (MonomialElement.sample(spec.classifier, generator) for _ in range(weights.batch))
    return replace(
        moved, classifier=transform_one_by_one(samples, weights.classifier).to(weights.classifier.biases[0].dtype)
    )


def transform_one_by_one(elements: Iterable[ActingOn[_Tree]], weights: _Tree) -> _Tree:
    """Return the weights [n, 1, ...] of n networks in float64, the i-th one transformed by the i-th of `elements`."""
    weights = weights.to(torch.float64)
    first, *others = [element.act(weights[index : index + 1]) for index, element in enumerate(elements)]
    return first.map(lambda *tensors: torch.cat(tensors), *others)


def sample_uniform(spec: BlockSpec, count: int, scale: float, generator: torch.Generator) -> BlockElement:
    """Return `count` random elements in one: every tensor has `count` in front."""
    M, M_inverse = _uniform_invertible(count * spec.heads, spec.key, scale, generator)
    N, N_inverse = _uniform_invertible(count * spec.heads, spec.value, scale, generator)
    M, M_inverse, N, N_inverse = (matrix.unflatten(0, (count, spec.heads)) for matrix in (M, M_inverse, N, N_inverse))
    tau, pi_O, pi_A = (_permutations(count, size, generator) for size in (spec.heads, spec.width, spec.hidden))
    return BlockElement(tau, M, M_inverse, N, N_inverse, pi_O, pi_A)


def act_each(elements: BlockElement, block: BlockWeights) -> BlockWeights:
    """Return the n networks' block [n, d, ...], the i-th one transformed by the i-th of `elements`."""

    def act(element: tuple[Tensor, ...], tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        one = BlockWeights(*(tensor.unsqueeze(0) for tensor in tensors))
        return tuple(tensor.squeeze(0) for tensor in BlockElement(*element).act(one).tensors())

    return BlockWeights(*torch.vmap(act)(tuple(elements.tensors()), tuple(block.tensors())))


def _permutations(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, size, generator=generator, dtype=torch.float64).argsort(dim=1)


def _uniform_invertible(count: int, size: int, scale: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return matrices [count, size, size] with entries uniform in [-scale, scale], and their inverses."""
    matrices = torch.empty(count, size, size, dtype=torch.float64)
    left = torch.arange(count)
    while len(left):
        matrices[left] = _uniform(len(left), size, scale, generator)
        condition = torch.linalg.cond(matrices[left])
        left = left[~(condition <= MOST_CONDITION)]  # not `>`, which lets the nan of a singular one pass
    return matrices, torch.linalg.inv(matrices)


def _uniform(count: int, size: int, scale: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(count, size, size, generator=generator, dtype=torch.float64) - 1) * scale
