"""Classifier head of linear layers equivariant to permuting and scaling neurons (Monomial-NFN, arXiv 2409.11697)."""

from functools import partial

from nfn_transformer.layers.hnps import HNPSLayer, HNPSPooling
from nfn_transformer.models.branch import ClassifierChannels
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register
from nfn_transformer.models.weight_space_head import WeightSpaceHead, stack_of
from nfn_transformer.weights.spec import TransformerSpec


def build_hnps(spec: TransformerSpec, config: ClassifierChannels) -> WeightSpaceHead:
    """Return the head for networks of some sizes."""
    return stack_of(HNPSLayer, partial(HNPSPooling, init_type=config.init_type), spec, config)


register(
    BranchEntry(
        role=CLASSIFIER,
        name="hnps",
        part="classifier",
        help="linear layers",
        symmetry="permuting and scaling hidden neurons",
        build=build_hnps,
        config=ClassifierChannels,
        reads=("dropout", "standardize", "init_type"),
    )
)
