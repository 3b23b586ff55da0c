"""Encoder of MLPs, INRs and CNNs by polynomials that respect permuting and scaling neurons (arXiv 2410.04213)."""

from functools import partial

from nfn_transformer.models.registry import ENCODER, BranchEntry, NetworkChannels, refuse_reference_init, register

register(
    BranchEntry(
        role=ENCODER,
        name="magep",
        part="whole network",
        help="polynomial layers",
        symmetry="permutations, scales, signs and phases",
        builds={"feed_forward": "nfn_transformer.models.weight_space_heads:MAGEPHead"},
        config=NetworkChannels,
        check=partial(refuse_reference_init, "--enc_mode magep"),
        reads=("dropout", "standardize", "init_type"),
        defaults={"cls_mode": "no", "emb_mode": "no", "standardize": True},
    )
)
