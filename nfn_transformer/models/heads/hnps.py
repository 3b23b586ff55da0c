"""Classifier head of linear layers equivariant to permuting and scaling neurons (Monomial-NFN, arXiv 2409.11697)."""

from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, ClassifierChannels, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="hnps",
        part="classifier",
        help="linear layers",
        symmetry="permuting and scaling hidden neurons",
        build="nfn_transformer.models.weight_space_heads:HNPSHead",
        config=ClassifierChannels,
        reads=("dropout", "standardize", "init_type"),
    )
)
