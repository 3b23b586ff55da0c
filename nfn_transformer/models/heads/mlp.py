"""Classifier head by flattened weights and Linear layers."""

from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, ClassifierChannels, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="mlp",
        part="classifier",
        help="flattened weights",
        build="nfn_transformer.models.branch:FlattenedBranch",
        config=ClassifierChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
        one_thread=True,
    )
)
