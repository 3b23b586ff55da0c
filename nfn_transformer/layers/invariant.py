"""The invariant polynomial layer I for one transformer block (arXiv 2410.04209, section 5)."""

import torch
from torch import Tensor, nn

from nfn_transformer.features.blocks import read_block
from nfn_transformer.layers.initialization import Fan, initialize_term
from nfn_transformer.layers.terms import TermTable, check_block, scalar_terms
from nfn_transformer.weights.containers import BlockWeights
from nfn_transformer.weights.spec import BlockSpec


class InvariantBlockLayer(nn.Module):
    """I = s_QK + s_VO + s_A + s_B + s_bA + s_bB + const, from d channels to e numbers.

    I(gU) = I(U) for every element g of the block's group (`groups.published`).

    Args:
        spec: sizes of the block that the layer reads.
        in_channels, out_channels: d and e.
        init_type: one of `layers.initialization.INIT_TYPES`.
        generator: source of the initial parameters; PyTorch's own where None.
    """

    def __init__(
        self,
        spec: BlockSpec,
        in_channels: int,
        out_channels: int,
        init_type: str = "xavier_normal",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.spec, self.in_channels = spec, in_channels
        self.scalars = TermTable(scalar_terms(spec), in_channels, {"I": (out_channels,)})
        self.constant = nn.Parameter(torch.empty(out_channels))
        self.scalars.reset_parameters(init_type, generator)
        initialize_term(self.constant, Fan(1, out_channels), init_type, generator)

    def forward(self, weights: BlockWeights) -> Tensor:
        """Block weights of d channels to invariants [b, e].

        Raises:
            SpecError: the weights do not have the sizes or channels that the layer was built for.
        """
        check_block(weights, self.spec, self.in_channels)
        return self.scalars(read_block(weights).scalars, self.constant)["I"]
