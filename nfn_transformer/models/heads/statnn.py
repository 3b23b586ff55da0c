"""Classifier head by seven statistics of each tensor and Linear layers."""

from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, ClassifierChannels, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="statnn",
        part="classifier",
        help="seven statistics of each tensor",
        build="nfn_transformer.models.branch:StatisticsBranch",
        config=ClassifierChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
        one_thread=True,
    )
)
