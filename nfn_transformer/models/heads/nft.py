"""Classifier head of attention among neurons, which respects permuting hidden ones (NFT, arXiv 2305.13546)."""

from nfn_transformer.errors import UserError
from nfn_transformer.layers.nft import NFTBlock, NFTEmbedding
from nfn_transformer.layers.permutation import HNPPooling
from nfn_transformer.models.branch import ClassifierChannels
from nfn_transformer.models.registry import CLASSIFIER, BranchEntry, register
from nfn_transformer.models.weight_space_head import WeightSpaceHead
from nfn_transformer.weights.spec import TransformerSpec


def build(spec: TransformerSpec, config: ClassifierChannels) -> WeightSpaceHead:
    """Return the head for networks of some sizes."""
    channels = config.classifier_nfn_channels
    blocks = [NFTBlock(spec.classifier, channels[0]) for _ in channels]
    layers = [NFTEmbedding(spec.classifier, 1, channels[0]), *blocks]
    return WeightSpaceHead(layers, HNPPooling(spec.classifier, channels[0]), config, activate=False)


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
        build=build,
        config=ClassifierChannels,
        check=check_nft,
        reads=("dropout", "standardize"),
    )
)
