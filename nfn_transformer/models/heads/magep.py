"""Classifier head of polynomial layers equivariant to permuting and scaling neurons (MAGEP-NFN, arXiv 2410.04213)."""

from functools import partial

from nfn_transformer.layers.hnps import HNPSPooling
from nfn_transformer.layers.magep import MAGEPLayer
from nfn_transformer.models.branch import ClassifierChannels
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register
from nfn_transformer.models.weight_space_head import refuse_reference_init, stack_of

register(
    BranchEntry(
        role=CLASSIFIER,
        name="magep",
        part="classifier",
        help="polynomial layers",
        symmetry="permuting and scaling hidden neurons",
        build=partial(stack_of, MAGEPLayer, HNPSPooling),
        config=ClassifierChannels,
        check=partial(refuse_reference_init, "magep"),
        reads=("dropout", "standardize", "init_type"),
    )
)
