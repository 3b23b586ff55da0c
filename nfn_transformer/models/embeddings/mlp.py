"""Published embedding branch: one Linear on the flattened weights of the patch embedding."""

from nfn_transformer.models.registry import EMBEDDING, BranchEntry, register

register(
    BranchEntry(
        role=EMBEDDING,
        name="mlp",
        part="embedding",
        help="one Linear on its weights",
        build="nfn_transformer.models.branch:LinearBranch",
        reads=("standardize", "log_magnitudes"),
        one_thread=True,
    )
)
