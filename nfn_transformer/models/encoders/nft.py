"""Encoder of MLPs, INRs and CNNs by attention among neurons, which respects permuting them (NFT, arXiv 2305.13546)."""

from nfn_transformer.errors import UserError
from nfn_transformer.models.registry import ENCODER, BranchEntry, NetworkChannels, register
from nfn_transformer.weights.spec import NetworkSpec


def check_network_nft(config: NetworkChannels, spec: NetworkSpec, zoo: str) -> None:
    """Raise UserError where the blocks would have several widths."""
    if len(set(config.network_channels)) > 1:
        listed = ",".join(map(str, config.network_channels))
        raise UserError(f"--enc_mode nft --network_channels {listed}: its blocks are of one width, as in 16,16")


register(
    BranchEntry(
        role=ENCODER,
        name="nft",
        part="whole network",
        help="attention among neurons",
        symmetry="permutations, signs and phases",
        builds={"feed_forward": "nfn_transformer.models.weight_space_heads:NFTHead"},
        edits={"feed_forward": "nfn_transformer.models.weight_space_editors:NFTEditor"},
        config=NetworkChannels,
        check=check_network_nft,
        reads=("dropout", "standardize"),
        defaults={"cls_mode": "no", "emb_mode": "no", "standardize": True},
    )
)
