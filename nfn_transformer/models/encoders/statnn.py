"""Encoder by seven statistics of each tensor of the blocks, or of other networks, and Linear layers."""

from nfn_transformer.models.registry import ENCODER, BranchEntry, PlainChannels, register

register(
    BranchEntry(
        role=ENCODER,
        name="statnn",
        part="blocks",
        help="seven statistics of each tensor",
        build="nfn_transformer.models.branch:StatisticsBranch",
        builds=dict.fromkeys(("feed_forward", "transformer"), "nfn_transformer.models.branch:StatisticsBranch"),
        config=PlainChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
        one_thread=True,
    )
)
