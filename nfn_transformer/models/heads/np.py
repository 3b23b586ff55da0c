"""Classifier head of linear layers that respect permuting inputs, neurons and classes (NP-NFN, arXiv 2302.14040)."""

from functools import partial

from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, ClassifierChannels, refuse_reference_init, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="np",
        part="classifier",
        help="linear layers",
        symmetry="permuting inputs, hidden neurons and classes",
        build="nfn_transformer.models.weight_space_heads:NPHead",
        config=ClassifierChannels,
        check=partial(refuse_reference_init, "--cls_mode np"),
        reads=("dropout", "standardize", "init_type"),
    )
)
