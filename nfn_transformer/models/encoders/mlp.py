"""Encoder by flattened weights of the blocks, or of other networks, and Linear layers."""

from nfn_transformer.models.registry import ENCODER, BranchEntry, PlainChannels, register

register(
    BranchEntry(
        role=ENCODER,
        name="mlp",
        part="blocks",
        help="flattened weights",
        build="nfn_transformer.models.branch:FlattenedBranch",
        builds=dict.fromkeys(("feed_forward", "transformer"), "nfn_transformer.models.branch:FlattenedBranch"),
        edits={"feed_forward": "nfn_transformer.models.weight_space_editors:MLPEditor"},
        config=PlainChannels,
        reads=("dropout", "standardize", "log_magnitudes"),
        one_thread=True,
    )
)
