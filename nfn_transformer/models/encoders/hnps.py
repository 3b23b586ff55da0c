"""Encoder of MLPs, INRs and CNNs by linear layers that respect permuting and scaling neurons (arXiv 2409.11697)."""

from nfn_transformer.models.registry import ENCODER, BranchEntry, NetworkChannels, register

register(
    BranchEntry(
        role=ENCODER,
        name="hnps",
        part="whole network",
        help="linear layers that respect scales",
        symmetry="permutations, scales, signs and phases",
        builds={"feed_forward": "nfn_transformer.models.weight_space_heads:HNPSHead"},
        edits={"feed_forward": "nfn_transformer.models.weight_space_editors:HNPSEditor"},
        config=NetworkChannels,
        reads=("dropout", "standardize", "init_type"),
        defaults={"cls_mode": "no", "emb_mode": "no", "standardize": True},
    )
)
