"""The symmetry group of standard transformers, which acts on their canonical form (`groups.standard_form`).

    residual stream   R, one for the network: what writes becomes W R, b R, what reads R^T W. R is orthogonal with
                      RMSNorms. With LayerNorms R 1 is 1 or -1: then x - mean(x) turns by R, and its size stays.
                      Gains in the stream of a post-norm leave permutations, with one sign for LayerNorms, and a sign of
                      each coordinate for RMSNorms. R is the identity where inputs or outputs are the stream itself, or
                      positions in it are constant.
    embedding         R_E in the same way, before an embedding norm that is followed by a matrix.
    queries, keys     M in GL(D_k): W_Q M, b_Q M and W_K M^-T, as M M^-1 cancels in scores. With rotary positions M
                      commutes with their rotations: scaled rotations of the pairs (i, i + D_k / 2).
    values, outputs   N in GL(D_v): W_V N and N^-1 W_O.
    heads             permutations of groups, and of the query heads within one. A group shares M and N.
    neurons           permutations. ReLU: positive factors, as ReLU(c x) = c ReLU(x). Gated: any factor of W_1.
    head              permutations of hidden neurons, with factors by their activation; signs for tanh.

Queries and keys of each block, values and so on have elements of their own. Classes and words are not permuted.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch

from nfn_transformer.groups.element import ProductElement
from nfn_transformer.groups.network import SCALED
from nfn_transformer.groups.standard_form import standard_canonical_form, standard_canonical_spec
from nfn_transformer.groups.standard_parts import (
    IDENTITY,
    ONES,
    ORTHOGONAL,
    SIGN,
    SIGNS,
    HeadsElement,
    NeuronsElement,
    StreamElement,
)
from nfn_transformer.weights.standard_containers import StandardBlockWeights, StandardTransformerWeights
from nfn_transformer.weights.standard_spec import StandardTransformerSpec


@dataclass(frozen=True)
class StandardElement(ProductElement):
    """Element of the group of standard transformers.

    ```python
    spec = nfn.StandardTransformerSpec(
        width=16, blocks=2, heads=4, groups=2, key=4, value=4, hidden=32, norm="rms", positions="rope",
        inputs="words", vocabulary=50, pooling="last", head_sizes=(16, 3), gated=True, activation="silu",
    )
    g = nfn.StandardElement.sample(spec, torch.Generator().manual_seed(0))
    ```
    """

    stream: StreamElement
    """R of the residual stream."""
    embedding: StreamElement | None
    """R_E before the embedding norm; None if there is none, or if no matrix follows it."""
    heads: tuple[HeadsElement, ...]
    """Parts in the heads of each block."""
    neurons: tuple[NeuronsElement, ...]
    """Parts in the MLP of each block."""
    head: tuple[NeuronsElement, ...]
    """Parts in the hidden layers of the head."""

    @classmethod
    def sample(
        cls,
        spec: StandardTransformerSpec,
        generator: torch.Generator,
        condition: float = 10.0,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """Return a random element, with factors between 1/4 and 4, uniform in the logarithm.

        Args:
            spec: of the networks or of their canonical form.
            generator: source of the random numbers.
            condition: number of the matrices M and N, at least 1; ratio of the scales of scaled rotations at most.
            dtype: of all but permutations.
        """
        stream, embedding = stream_symmetries(spec)
        neurons = "none" if spec.gated else spec.activation
        sizes, kinds = spec.head_sizes[1:-1], _head_kinds(spec)
        return cls(
            StreamElement.sample(stream, spec.width, generator, dtype),
            None if embedding is None else StreamElement.sample(embedding, spec.width, generator, dtype),
            tuple(HeadsElement.sample(spec, generator, condition, dtype) for _ in range(spec.blocks)),
            tuple(NeuronsElement.sample(spec.hidden, neurons, generator, dtype) for _ in range(spec.blocks)),
            tuple(NeuronsElement.sample(n, kind, generator, dtype) for n, kind in zip(sizes, kinds, strict=True)),
        )

    def act(self, weights: StandardTransformerWeights) -> StandardTransformerWeights:
        """Return the transformed canonical form of b networks."""
        form = standard_canonical_form(weights)
        R, spec = self.stream.R, form.spec
        is_post = spec.placement == "post"
        blocks = tuple(
            self._act_on_block(*parts, is_post) for parts in zip(form.blocks, self.heads, self.neurons, strict=True)
        )
        before = R if self.embedding is None else self.embedding.R
        late = before if spec.inputs in ("words", "stream") else R  # of positions and prefix tokens
        turns = {
            **dict.fromkeys(("words", "token_types", "W_E", "b_E"), before),
            **dict.fromkeys(("positions", "prefix"), late),
            **{"embedding_shift": R, "embedding_gain": R.abs()},
        }
        if self.embedding is not None and form.embedding_gain is not None:
            form = replace(form, embedding_gain=self.embedding.R.T @ form.embedding_gain)
            turns["embedding_gain"] = R
        turns = {name: turn for name, turn in turns.items() if vars(form)[name] is not None}
        form = replace(form, blocks=blocks, **{name: vars(form)[name] @ turn for name, turn in turns.items()})
        matrices, biases = list(form.head_weights), list(form.head_biases)
        if matrices:
            matrices[0] = R.T @ matrices[0]
        for layer, element in enumerate(self.head):
            matrices[layer] = matrices[layer][..., element.pi] * element.c
            biases[layer] = biases[layer][..., element.pi] * element.c
            matrices[layer + 1] = matrices[layer + 1][:, element.pi] / element.c[:, None]
        return replace(form, head_weights=tuple(matrices), head_biases=tuple(biases))

    def _act_on_block(
        self, block: StandardBlockWeights, heads: HeadsElement, neurons: NeuronsElement, is_post: bool
    ) -> StandardBlockWeights:
        R, tau, of_queries, pi, c = self.stream.R, heads.tau, heads.heads, neurons.pi, neurons.c
        count = heads.sigma.shape[1]
        M, N_inverse = (matrix.repeat_interleave(count, dim=0) for matrix in (heads.M, torch.linalg.inv(heads.N)))
        M_back = torch.linalg.inv(heads.M).transpose(1, 2)
        gate, norms = {}, {}
        if is_post:
            norms = {name: vars(block)[name] @ R for name in ("shift_1", "shift_2")}
            norms |= {name: vars(block)[name] @ R.abs() for name in ("gain_1", "gain_2")}
        if block.W_G is not None and block.b_G is not None:
            gate = {"W_G": R.T @ block.W_G[..., pi], "b_G": block.b_G[..., pi]}
        return replace(
            block,
            W_Q=R.T @ block.W_Q[:, of_queries] @ M,
            b_Q=(block.b_Q[:, of_queries, None] @ M).squeeze(2),
            W_K=R.T @ block.W_K[:, tau] @ M_back,
            b_K=(block.b_K[:, tau, None] @ M_back).squeeze(2),
            W_V=R.T @ block.W_V[:, tau] @ heads.N,
            W_O=N_inverse @ block.W_O[:, of_queries] @ R,
            b_O=block.b_O @ R,
            W_1=R.T @ block.W_1[..., pi] * c,
            b_1=block.b_1[..., pi] * c,
            W_2=block.W_2[:, pi] / c[:, None] @ R,
            b_2=block.b_2 @ R,
            **gate,
            **norms,
        )


def stream_symmetries(spec: StandardTransformerSpec) -> tuple[str, str | None]:
    """Return the kinds of R and of R_E that keep the function of networks of a spec; see `standard_parts.IDENTITY`.

    The second one is None if no matrix follows an embedding norm.
    """
    spec = standard_canonical_spec(spec)
    kinds = (SIGN, ONES) if spec.norm == "layer" else (SIGNS, ORTHOGONAL)
    is_pre, given = spec.placement == "pre", spec.inputs == "stream"
    is_fixed = not spec.head_sizes or spec.positions.startswith("sinusoidal") or (given and not spec.embedding_mix)
    embedding = IDENTITY if given else kinds[1]
    return IDENTITY if is_fixed else kinds[is_pre], embedding if spec.embedding_mix else None


def _head_kinds(spec: StandardTransformerSpec) -> list[str]:
    """Return for each hidden layer of the head the activation whose factors it has."""
    kinds = list(spec.activations[:-1])
    return [*kinds[:-1], "gelu"] if spec.head_norm else kinds  # neurons that a norm reads are only permuted


def symmetry_dimensions(spec: StandardTransformerSpec) -> dict[str, int]:
    """Return the dimension of each part of the group that acts on the canonical form of networks of a spec.

    Permutations and signs have none. Gains, shifts and means that the canonical form takes away are not counted.
    """
    of_turns = {ORTHOGONAL: spec.width * (spec.width - 1) // 2, ONES: (spec.width - 1) * (spec.width - 2) // 2}
    stream, embedding = stream_symmetries(spec)
    has_factors = spec.gated or spec.activation in SCALED
    hidden = zip(spec.head_sizes[1:-1], _head_kinds(spec), strict=True)
    groups = spec.blocks * spec.groups
    return {
        "stream": of_turns.get(stream, 0),
        "embedding": of_turns.get(embedding or IDENTITY, 0),
        "queries and keys": groups * (spec.key if spec.positions == "rope" else spec.key**2),
        "values and outputs": groups * spec.value**2,
        "neurons": spec.blocks * spec.hidden if has_factors else 0,
        "head": sum(count for count, kind in hidden if kind in SCALED),
    }
