"""Encoder of feed-forward networks by messages that are linear in the weights (`layers.bilinear`)."""

from dataclasses import dataclass

from nfn_transformer.configuration import COUNT, setting
from nfn_transformer.models.registry import ENCODER, BranchConfig, BranchEntry, register


@dataclass(frozen=True)
class BilinearConfig(BranchConfig):
    """Configuration of the encoder; its flags."""

    bilinear_layers: int = setting(3, "how often neighbouring layers of a network exchange messages", **COUNT)
    bilinear_dim: int = setting(32, "numbers of either kind that each neuron carries", **COUNT)


register(
    BranchEntry(
        role=ENCODER,
        name="bilinear",
        part="whole network",
        help="messages through the weights, odd and even in each neuron's sign",
        symmetry="permutations, scales, signs and phases",
        builds={"feed_forward": "nfn_transformer.models.bilinear_encoder:BilinearEncoder"},
        edits={"feed_forward": "nfn_transformer.models.bilinear_encoder:BilinearEditor"},
        config=BilinearConfig,
        reads=("dropout",),
        defaults={"cls_mode": "no", "emb_mode": "no"},
        several_sizes=True,
    )
)
