"""Encoder by seven statistics of each tensor of the blocks and Linear layers."""

from nfn_transformer.features.statistics import weight_statistics
from nfn_transformer.models.branch import EncoderChannels, FeatureBranch
from nfn_transformer.models.registry import ENCODER, BranchEntry, register

register(
    BranchEntry(
        role=ENCODER,
        name="statnn",
        part="blocks",
        help="seven statistics of each tensor",
        build=lambda spec, config: FeatureBranch(
            spec, config, config.transformers_nfn_channels, "blocks", weight_statistics
        ),
        config=EncoderChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
    )
)
