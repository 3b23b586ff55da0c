"""Encoder of standard transformers by products of what writes into their residual stream and what reads from it."""

from nfn_transformer.models.registry import ENCODER, BranchEntry, register

register(
    BranchEntry(
        role=ENCODER,
        name="products",
        part="whole network",
        help="products of what writes into a residual stream and what reads from it, of the weights alone",
        symmetry="every symmetry of the network",
        builds={"transformer": "nfn_transformer.models.standard_encoders:ProductsEncoder"},
        reads=("dropout",),
        always={"standardize": True},
        defaults={"cls_mode": "no", "emb_mode": "no", "dropout": 0.4, "ensemble": 5},
        several_sizes=True,
        one_thread=True,
    )
)
