"""Classifier head of linear layers that respect permuting hidden neurons (HNP-NFN, arXiv 2302.14040)."""

from functools import partial

from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, ClassifierChannels, refuse_reference_init, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="hnp",
        part="classifier",
        help="linear layers",
        symmetry="permuting hidden neurons",
        build="nfn_transformer.models.weight_space_heads:HNPHead",
        config=ClassifierChannels,
        check=partial(refuse_reference_init, "--cls_mode hnp"),
        reads=("dropout", "standardize", "init_type"),
    )
)
