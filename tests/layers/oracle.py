"""The polynomial layers, slowly and term by term: the formulas of `scripts/benchmarks/published_layers.py`.

They read the layers' own parameters, so that gradients can be held against them, too.
"""

from published_layers import EQUIVARIANT, INVARIANT, term_by_term, terms_of
from torch import Tensor

from nfn_transformer import BlockWeights, EquivariantBlockLayer, InvariantBlockLayer


def invariant(layer: InvariantBlockLayer, U: BlockWeights) -> Tensor:
    return term_by_term(INVARIANT, terms_of(layer), U)["I"]


def equivariant(layer: EquivariantBlockLayer, U: BlockWeights) -> BlockWeights:
    return BlockWeights(**term_by_term(EQUIVARIANT, terms_of(layer), U))
