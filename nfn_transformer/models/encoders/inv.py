"""Published encoder: equivariant layers on every block and an invariant one (arXiv 2410.04209, section 6)."""

from nfn_transformer.models.registry import ENCODER, BranchEntry, EncoderChannels, register

register(
    BranchEntry(
        role=ENCODER,
        name="inv",
        part="blocks",
        help="equivariant layers and an invariant one",
        symmetry="the group of every block",
        build="nfn_transformer.models.branch:EquivariantEncoder",
        config=EncoderChannels,
        reads=("dropout", "standardize", "init_type"),
        one_thread=True,
    )
)
