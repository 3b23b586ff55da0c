"""Classifier head of linear layers equivariant to permuting and scaling neurons (Monomial-NFN, arXiv 2409.11697)."""

from functools import partial

from nfn_transformer.layers.hnps import HNPSLayer, HNPSPooling
from nfn_transformer.models.branch import ClassifierChannels
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register
from nfn_transformer.models.weight_space_head import stack_of

register(
    BranchEntry(
        role=CLASSIFIER,
        name="hnps",
        part="classifier",
        help="linear layers",
        symmetry="permuting and scaling hidden neurons",
        build=partial(stack_of, HNPSLayer, HNPSPooling),
        config=ClassifierChannels,
        reads=("dropout", "standardize", "init_type"),
    )
)
