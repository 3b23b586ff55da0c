"""Encoder by flattened weights of the blocks and Linear layers."""

from nfn_transformer.models.registry import ENCODER, BranchEntry, EncoderChannels, register

register(
    BranchEntry(
        role=ENCODER,
        name="mlp",
        part="blocks",
        help="flattened weights",
        build="nfn_transformer.models.branch:FlattenedBranch",
        config=EncoderChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
    )
)
