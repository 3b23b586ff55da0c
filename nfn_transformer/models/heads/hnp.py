"""Classifier head of linear layers that respect permuting hidden neurons (HNP-NFN, arXiv 2302.14040)."""

from functools import partial

from nfn_transformer.layers.permutation import HNPLinear, HNPPooling
from nfn_transformer.models.branch import ClassifierChannels
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register
from nfn_transformer.models.weight_space_head import refuse_reference_init, stack_of

register(
    BranchEntry(
        role=CLASSIFIER,
        name="hnp",
        part="classifier",
        help="linear layers",
        symmetry="permuting hidden neurons",
        build=partial(stack_of, HNPLinear, HNPPooling),
        config=ClassifierChannels,
        check=partial(refuse_reference_init, "hnp"),
        reads=("dropout", "standardize", "init_type"),
    )
)
