"""Encoder of MLPs, INRs and CNNs by linear layers that are alike for all neurons (NP-NFN, arXiv 2302.14040)."""

from functools import partial

from nfn_transformer.models.registry import ENCODER, BranchEntry, NetworkChannels, refuse_reference_init, register

register(
    BranchEntry(
        role=ENCODER,
        name="np",
        part="whole network",
        help="linear layers alike for all neurons; positions of inputs and outputs",
        symmetry="permutations, signs and phases",
        builds={"feed_forward": "nfn_transformer.models.weight_space_heads:NPHead"},
        edits={"feed_forward": "nfn_transformer.models.weight_space_editors:NPEditor"},
        config=NetworkChannels,
        check=partial(refuse_reference_init, "--enc_mode np"),
        reads=("dropout", "standardize", "init_type"),
        defaults={"cls_mode": "no", "emb_mode": "no", "standardize": True},
    )
)
