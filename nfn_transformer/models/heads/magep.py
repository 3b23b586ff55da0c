"""Classifier head of polynomial layers equivariant to permuting and scaling neurons (MAGEP-NFN, arXiv 2410.04213)."""

from functools import partial

from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, ClassifierChannels, refuse_reference_init, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="magep",
        part="classifier",
        help="polynomial layers",
        symmetry="permuting and scaling hidden neurons",
        build="nfn_transformer.models.weight_space_heads:MAGEPHead",
        config=ClassifierChannels,
        check=partial(refuse_reference_init, "--cls_mode magep"),
        reads=("dropout", "standardize", "init_type"),
    )
)
