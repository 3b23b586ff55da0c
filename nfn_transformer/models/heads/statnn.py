"""Classifier head by seven statistics of each tensor and Linear layers."""

from nfn_transformer.features.statistics import weight_statistics
from nfn_transformer.models.branch import ClassifierChannels, FeatureBranch
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="statnn",
        part="classifier",
        help="seven statistics of each tensor",
        build=lambda spec, config: FeatureBranch(
            spec, config, config.classifier_nfn_channels, "classifier", weight_statistics
        ),
        config=ClassifierChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
    )
)
