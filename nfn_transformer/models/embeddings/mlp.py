"""Published embedding branch: one Linear on the flattened weights of the patch embedding."""

from dataclasses import dataclass

from nfn_transformer.errors import UserError
from nfn_transformer.models.branch import BranchConfig, LinearBranch
from nfn_transformer.models.registry import EMBEDDING, BranchEntry, register
from nfn_transformer.weights.spec import TransformerSpec


@dataclass(frozen=True)
class EmbeddingConfig(BranchConfig):
    """Configuration of the embedding branch."""

    def check(self, spec: TransformerSpec, zoo: str) -> None:
        """Raise UserError where the networks have no embedding."""
        if spec.embedding is None:
            raise UserError(f"--emb_mode mlp: the checkpoints of zoo '{zoo}' have no embedding; use --emb_mode no")


register(
    BranchEntry(
        role=EMBEDDING,
        name="mlp",
        part="embedding",
        help="one Linear on its weights",
        build=LinearBranch,
        config=EmbeddingConfig,
        reads=("standardize", "log_magnitudes"),
    )
)
