"""Classifier head by flattened weights and Linear layers."""

from nfn_transformer.features.flat import flatten
from nfn_transformer.models.branch import ClassifierChannels, FeatureBranch
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register

register(
    BranchEntry(
        role=CLASSIFIER,
        name="mlp",
        part="classifier",
        help="flattened weights",
        build=lambda spec, config: FeatureBranch(spec, config, config.classifier_nfn_channels, "classifier", flatten),
        config=ClassifierChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
    )
)
