"""Part of the complete group (`groups.complete`) in one block."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from nfn_transformer.groups.element import Element
from nfn_transformer.groups.published import BlockElement
from nfn_transformer.weights.containers import BlockWeights, TensorTree
from nfn_transformer.weights.spec import BlockSpec


@dataclass(frozen=True)
class BlockShifts(TensorTree):
    """Shifts of a block's tensors, u along the input coordinate and s along the output coordinate."""

    u_Q: Float[Tensor, "h D_k"]
    u_K: Float[Tensor, "h D_k"]
    u_V: Float[Tensor, "h D_v"]
    u_A: Float[Tensor, " D_A"]
    s_O: Float[Tensor, "h D_v"]
    """Added to W^O."""
    s_B: Float[Tensor, " D_A"]
    """Added to W^B."""
    s_b: Float[Tensor, ""]
    """Added to b^B."""


@dataclass(frozen=True)
class CompleteBlockElement(Element):
    """Part of an element in one block. R_O and R_B are orthogonal and map the vector of ones to itself."""

    published: BlockElement
    """Element of G_U."""
    R_O: Float[Tensor, "D D"]
    """Rotation of the coordinates after the attention."""
    R_B: Float[Tensor, "D D"]
    """Rotation of the coordinates after the block."""
    c_A: Float[Tensor, " D_A"]
    """Positive scales of the hidden neurons."""
    c_O: Float[Tensor, ""]
    """Positive scale of W^O."""
    c_B: Float[Tensor, ""]
    """Positive scale of W^B and b^B."""
    shifts: BlockShifts

    @classmethod
    def sample(
        cls, spec: BlockSpec, generator: torch.Generator, condition: float, dtype: torch.dtype, amount: float
    ) -> Self:
        """Return a random element; see `CompleteElement.sample`."""
        return cls(
            published=BlockElement.sample(spec, generator, condition, dtype),
            R_O=random_rotation(spec.width, generator).to(dtype),
            R_B=random_rotation(spec.width, generator).to(dtype),
            c_A=random_scales((spec.hidden,), generator, dtype),
            c_O=random_scales((), generator, dtype),
            c_B=random_scales((), generator, dtype),
            shifts=BlockShifts(*(random_shift(shape, generator, dtype, amount) for shape in _shift_shapes(spec))),
        )

    @classmethod
    def sample_permutations(cls, spec: BlockSpec, generator: torch.Generator, dtype: torch.dtype) -> Self:
        """Return a random element that permutes and does no more; see `CompleteElement.sample_permutations`."""
        M, N = (_permutation_matrices(spec.heads, size, generator).to(dtype) for size in (spec.key, spec.value))
        tau, pi_O, pi_A = (torch.randperm(n, generator=generator) for n in (spec.heads, spec.width, spec.hidden))
        published = BlockElement(tau, M, M.transpose(1, 2), N, N.transpose(1, 2), pi_O, pi_A)
        R_B = _permutation_matrices(1, spec.width, generator)[0].to(dtype)
        return replace(cls.identity(spec, dtype), published=published, R_B=R_B)

    @classmethod
    def identity(cls, spec: BlockSpec, dtype: torch.dtype = torch.float64) -> Self:
        """Return the element that changes nothing."""
        one = torch.ones((), dtype=dtype)
        shifts = BlockShifts(*(torch.zeros(shape, dtype=dtype) for shape in _shift_shapes(spec)))
        c_A, R = torch.ones(spec.hidden, dtype=dtype), torch.eye(spec.width, dtype=dtype)
        return cls(BlockElement.identity(spec, dtype), R, R, c_A, one, one, shifts)

    def act(self, weights: BlockWeights, R_in: Float[Tensor, "D D"]) -> BlockWeights:
        """Return the transformed weights, with the input coordinates turned by R_in."""
        moved, shifts, back = self.published.act(weights), self.shifts, R_in.T
        return BlockWeights(
            W_Q=back @ moved.W_Q + shifts.u_Q[:, None],
            W_K=back @ moved.W_K + shifts.u_K[:, None],
            W_V=back @ moved.W_V + shifts.u_V[:, None],
            W_O=self.c_O * moved.W_O @ self.R_O + shifts.s_O[..., None],
            W_A=self.R_O.T @ moved.W_A * self.c_A + shifts.u_A,
            b_A=moved.b_A * self.c_A,
            W_B=self.c_B * moved.W_B @ self.R_B / self.c_A[:, None] + shifts.s_B[:, None],
            b_B=self.c_B * moved.b_B @ self.R_B + shifts.s_b,
        )

    def __matmul__(self, first: Self) -> Self:
        return type(self)(
            published=self.published @ first.published,
            R_O=first.R_O[self.published.pi_O][:, self.published.pi_O] @ self.R_O,
            R_B=first.R_B @ self.R_B,
            c_A=first.c_A[self.published.pi_A] * self.c_A,
            c_O=first.c_O * self.c_O,
            c_B=first.c_B * self.c_B,
            shifts=self.shifts.map(torch.add, self._moved(first.shifts)),
        )

    def __invert__(self) -> Self:
        published = ~self.published
        linear = replace(
            self,
            published=published,
            R_O=self.R_O[published.pi_O][:, published.pi_O].T,
            R_B=self.R_B.T,
            c_A=1 / self.c_A[published.pi_A],
            c_O=1 / self.c_O,
            c_B=1 / self.c_B,
        )
        return replace(linear, shifts=linear._moved(self.shifts).map(torch.neg))

    def _moved(self, shifts: BlockShifts) -> BlockShifts:
        """Return the shifts as the linear part of this element moves them."""
        g = self.published
        tau, pi_A = g.tau, g.pi_A

        def rows(vectors: Tensor, matrices: Tensor) -> Tensor:
            return (vectors[tau].unsqueeze(-2) @ matrices[tau]).squeeze(-2)

        return BlockShifts(
            u_Q=rows(shifts.u_Q, g.M.transpose(-1, -2)),
            u_K=rows(shifts.u_K, g.M_inverse),
            u_V=rows(shifts.u_V, g.N),
            u_A=shifts.u_A[pi_A] * self.c_A,
            s_O=self.c_O * rows(shifts.s_O, g.N_inverse.transpose(-1, -2)),
            s_B=self.c_B * shifts.s_B[pi_A] / self.c_A,
            s_b=self.c_B * shifts.s_b,
        )


def random_rotation(size: int, generator: torch.Generator) -> Float64[Tensor, "{size} {size}"]:
    """Return a random orthogonal matrix that maps the vector of ones to itself."""
    normal = torch.randn(size, size, generator=generator, dtype=torch.float64)
    normal[:, 0] = 1
    basis = torch.linalg.qr(normal).Q  # its first column is parallel to the ones
    inner = torch.linalg.qr(torch.randn(size - 1, size - 1, generator=generator, dtype=torch.float64)).Q
    return basis @ torch.block_diag(torch.ones(1, 1, dtype=torch.float64), inner) @ basis.T


def _permutation_matrices(
    count: int, size: int, generator: torch.Generator
) -> Float64[Tensor, "{count} {size} {size}"]:
    """Return random permutation matrices."""
    orders = [torch.randperm(size, generator=generator) for _ in range(count)]
    return torch.stack([torch.eye(size, dtype=torch.float64)[order] for order in orders])


def _shift_shapes(spec: BlockSpec) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the fields of BlockShifts."""
    keys, values, hidden = (spec.heads, spec.key), (spec.heads, spec.value), (spec.hidden,)
    return (keys, keys, values, hidden, values, hidden, ())


def random_scales(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Return numbers between 1/4 and 4, uniform in the logarithm."""
    return 4 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1).to(dtype)


def random_shift(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, amount: float) -> Tensor:
    """Return normal numbers of standard deviation `amount`."""
    return (amount * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
