"""The symmetry group of a transformer block's weights, and its action (arXiv 2410.04209, section 4).

G_U = S_h x GL(D_k)^h x GL(D_v)^h x P_D x P_(D_A). An element g = (tau, (M_i), (N_i), pi_O, pi_A) acts by

    W^Q_i -> W^Q_tau(i) M_tau(i)^T     W^K_i -> W^K_tau(i) M_tau(i)^-1
    W^V_i -> W^V_tau(i) N_tau(i)       W^O_i -> N_tau(i)^-1 W^O_tau(i) P_piO
    W^A   -> P_piO^-1 W^A P_piA        b^A   -> b^A P_piA
    W^B   -> P_piA^-1 W^B              b^B   -> b^B

with (W P_pi)[:, k] = W[:, pi(k)]. It leaves the function of the block as it is. Elements keep the inverses of M and
N, so that acting, multiplying and inverting solve nothing and lose no digits.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfn_transformer.groups.element import Element, ProductElement
from nfn_transformer.groups.monomial import MonomialElement
from nfn_transformer.weights.containers import BlockWeights, TransformerWeights
from nfn_transformer.weights.spec import BlockSpec, TransformerSpec


@dataclass(frozen=True)
class BlockElement(Element):
    """Element of G_U, or n elements at once: all tensors with n in front.

    ```python
    block = zoo.weights(torch.arange(8)).blocks[0].to(torch.float64)
    g = nfn.BlockElement.sample(block.spec, torch.Generator().manual_seed(0))
    moved = g.act(block)  # another block, the same function
    back = (~g).act(moved)
    ```
    """

    tau: Int64[Tensor, " *n h"]
    """Permutation of the heads."""
    M: Float[Tensor, " *n h D_k D_k"]
    M_inverse: Float[Tensor, " *n h D_k D_k"]
    N: Float[Tensor, " *n h D_v D_v"]
    N_inverse: Float[Tensor, " *n h D_v D_v"]
    pi_O: Int64[Tensor, " *n D"]
    """Permutation of the coordinates after the attention."""
    pi_A: Int64[Tensor, " *n D_A"]
    """Permutation of the hidden neurons."""

    @classmethod
    def identity(cls, spec: BlockSpec, dtype: torch.dtype = torch.float64) -> Self:
        """Return the element that changes nothing."""
        M = torch.eye(spec.key, dtype=dtype).repeat(spec.heads, 1, 1)
        N = torch.eye(spec.value, dtype=dtype).repeat(spec.heads, 1, 1)
        return cls(torch.arange(spec.heads), M, M, N, N, torch.arange(spec.width), torch.arange(spec.hidden))

    @classmethod
    def sample(
        cls,
        spec: BlockSpec,
        generator: torch.Generator,
        condition: float = 10.0,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """Return a random element with uniform permutations.

        Singular values of M and N are spread evenly in the logarithm around 1.

        Args:
            spec: sizes of the block.
            generator: source of the random numbers.
            condition: number of M and N, at least 1; that of 1 x 1 matrices is always 1.
            dtype: of M and N.
        """
        M, M_inverse = random_invertible(spec.heads, spec.key, condition, generator)
        N, N_inverse = random_invertible(spec.heads, spec.value, condition, generator)
        tau, pi_O, pi_A = (torch.randperm(n, generator=generator) for n in (spec.heads, spec.width, spec.hidden))
        return cls(tau, M.to(dtype), M_inverse.to(dtype), N.to(dtype), N_inverse.to(dtype), pi_O, pi_A)

    def act(self, weights: BlockWeights) -> BlockWeights:
        """Return the transformed weights g U, for all networks and channels alike."""
        tau, pi_O, pi_A = self.tau, self.pi_O, self.pi_A
        M, M_inverse, N, N_inverse = (matrix[tau] for matrix in (self.M, self.M_inverse, self.N, self.N_inverse))
        return BlockWeights(
            W_Q=weights.W_Q[:, :, tau] @ M.transpose(-1, -2),
            W_K=weights.W_K[:, :, tau] @ M_inverse,
            W_V=weights.W_V[:, :, tau] @ N,
            W_O=(N_inverse @ weights.W_O[:, :, tau])[..., pi_O],
            W_A=weights.W_A[:, :, pi_O][..., pi_A],
            b_A=weights.b_A[..., pi_A],
            W_B=weights.W_B[:, :, pi_A],
            b_B=weights.b_B,
        )

    def __matmul__(self, first: Self) -> Self:
        head = torch.argsort(first.tau)  # index to which `first` moves head j
        return replace(
            self,
            tau=first.tau[self.tau],
            M=self.M[head] @ first.M,
            M_inverse=first.M_inverse @ self.M_inverse[head],
            N=first.N @ self.N[head],
            N_inverse=self.N_inverse[head] @ first.N_inverse,
            pi_O=first.pi_O[self.pi_O],
            pi_A=first.pi_A[self.pi_A],
        )

    def __invert__(self) -> Self:
        tau = self.tau
        return replace(
            self,
            tau=torch.argsort(tau),
            M=self.M_inverse[tau],
            M_inverse=self.M[tau],
            N=self.N_inverse[tau],
            N_inverse=self.N[tau],
            pi_O=torch.argsort(self.pi_O),
            pi_A=torch.argsort(self.pi_A),
        )


def random_invertible(count: int, size: int, condition: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random matrices U S V^T [count, size, size] with this condition number, and their inverses."""
    normal = torch.randn(2, count, size, size, generator=generator, dtype=torch.float64)
    left, right = torch.linalg.qr(normal).Q
    exponent = torch.linspace(-0.5, 0.5, size, dtype=torch.float64) if size > 1 else torch.zeros(1, dtype=torch.float64)
    singular = torch.as_tensor(condition, dtype=torch.float64) ** exponent
    matrix = left * singular @ right.transpose(-1, -2)
    inverse = right / singular @ left.transpose(-1, -2)
    return matrix, inverse


@dataclass(frozen=True)
class GroupElement(ProductElement):
    """Element of the whole network's group.

    ```python
    weights = zoo.weights(torch.arange(8)).to(torch.float64)
    g = nfn.GroupElement.sample(weights.spec, torch.Generator().manual_seed(0))
    moved = g.act(weights)  # other networks, the same functions
    ```
    """

    blocks: tuple[BlockElement, ...]
    """One for each block."""
    classifier: MonomialElement | None = None
    """Moves the classifier's hidden neurons (`groups.monomial`); None leaves them."""

    @classmethod
    def identity(cls, spec: TransformerSpec, dtype: torch.dtype = torch.float64) -> Self:
        """Return the element that changes nothing."""
        return cls(tuple(BlockElement.identity(block, dtype) for block in spec.blocks))

    @classmethod
    def sample(
        cls,
        spec: TransformerSpec,
        generator: torch.Generator,
        condition: float = 10.0,
        dtype: torch.dtype = torch.float64,
        classifier: bool = False,
    ) -> Self:
        """Return a random element, with one for every block.

        Args:
            spec: sizes of the network.
            generator: source of the random numbers.
            condition: number of the matrices M and N, at least 1.
            dtype: of all but permutations.
            classifier: permute and scale the classifier's hidden neurons, too.
        """
        blocks = tuple(BlockElement.sample(block, generator, condition, dtype) for block in spec.blocks)
        return cls(blocks, MonomialElement.sample(spec.classifier, generator, dtype) if classifier else None)

    def act(self, weights: TransformerWeights) -> TransformerWeights:
        """Return the transformed weights; the embedding stays."""
        blocks = tuple(g.act(block) for g, block in zip(self.blocks, weights.blocks, strict=True))
        classifier = weights.classifier if self.classifier is None else self.classifier.act(weights.classifier)
        return replace(weights, blocks=blocks, classifier=classifier)
