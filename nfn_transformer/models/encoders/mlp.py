"""Encoder by flattened weights of the blocks and Linear layers."""

from nfn_transformer.features.flat import flatten
from nfn_transformer.models.branch import EncoderChannels, FeatureBranch
from nfn_transformer.models.registry import ENCODER, BranchEntry, register

register(
    BranchEntry(
        role=ENCODER,
        name="mlp",
        part="blocks",
        help="flattened weights",
        build=lambda spec, config: FeatureBranch(spec, config, config.transformers_nfn_channels, "blocks", flatten),
        config=EncoderChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
    )
)
