"""Classifier head of attention among neurons, which respects permuting hidden ones (NFT, arXiv 2305.13546)."""

from nfn_transformer.errors import UserError
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, ClassifierChannels, register
from nfn_transformer.weights.spec import TransformerSpec


def check_nft(config: ClassifierChannels, spec: TransformerSpec, zoo: str) -> None:
    """Raise UserError where the blocks would have several widths."""
    if len(set(config.classifier_nfn_channels)) > 1:
        listed = ",".join(map(str, config.classifier_nfn_channels))
        raise UserError(f"--cls_mode nft --classifier_nfn_channels {listed}: its blocks are of one width, as in 10,10")


register(
    BranchEntry(
        role=CLASSIFIER,
        name="nft",
        part="classifier",
        help="attention among neurons",
        symmetry="permuting hidden neurons",
        build="nfn_transformer.models.weight_space_heads:NFTHead",
        config=ClassifierChannels,
        check=check_nft,
        reads=("dropout", "standardize"),
    )
)
