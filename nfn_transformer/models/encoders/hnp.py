"""Encoder of MLPs, INRs and CNNs by linear layers that respect permuting hidden neurons (HNP-NFN, arXiv 2302.14040)."""

from functools import partial

from nfn_transformer.models.registry import ENCODER, BranchEntry, NetworkChannels, refuse_reference_init, register

register(
    BranchEntry(
        role=ENCODER,
        name="hnp",
        part="whole network",
        help="linear layers",
        symmetry="permutations, signs and phases",
        builds={"feed_forward": "nfn_transformer.models.weight_space_heads:HNPHead"},
        edits={"feed_forward": "nfn_transformer.models.weight_space_editors:HNPEditor"},
        config=NetworkChannels,
        check=partial(refuse_reference_init, "--enc_mode hnp"),
        reads=("dropout", "standardize", "init_type"),
        defaults={"cls_mode": "no", "emb_mode": "no", "standardize": True},
    )
)
