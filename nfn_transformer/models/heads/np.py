"""Classifier head of linear layers that respect permuting inputs, neurons and classes (NP-NFN, arXiv 2302.14040)."""

from functools import partial

from nfn_transformer.layers.permutation import NPLinear, NPPooling
from nfn_transformer.models.branch import ClassifierChannels
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register
from nfn_transformer.models.weight_space_head import refuse_reference_init, stack_of

register(
    BranchEntry(
        role=CLASSIFIER,
        name="np",
        part="classifier",
        help="linear layers",
        symmetry="permuting inputs, hidden neurons and classes",
        build=partial(stack_of, NPLinear, NPPooling),
        config=ClassifierChannels,
        check=partial(refuse_reference_init, "np"),
        reads=("dropout", "standardize", "init_type"),
    )
)
