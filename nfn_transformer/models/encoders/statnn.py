"""Encoder by seven statistics of each tensor of the blocks and Linear layers."""

from nfn_transformer.models.registry import ENCODER, BranchEntry, EncoderChannels, register

register(
    BranchEntry(
        role=ENCODER,
        name="statnn",
        part="blocks",
        help="seven statistics of each tensor",
        build="nfn_transformer.models.branch:StatisticsBranch",
        config=EncoderChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
    )
)
