"""Encoder of the whole network that is invariant to the complete group (`groups.complete`)."""

from dataclasses import dataclass

from nfn_transformer.configuration import setting
from nfn_transformer.errors import UserError
from nfn_transformer.models.registry import ENCODER, BranchConfig, BranchEntry, register
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec


def check_complete(config: BranchConfig, spec: TransformerSpec | NetworkSpec, zoo: str) -> None:
    """Raise UserError if transformers' classifier has another number of layers than two."""
    if isinstance(spec, TransformerSpec) and spec.classifier.layers != 2:
        raise UserError(
            f"--enc_mode complete: reads classifiers of two layers, those of zoo '{zoo}' have {spec.classifier.layers}"
        )


@dataclass(frozen=True)
class CompleteConfig(BranchConfig):
    """Configuration of the encoder; its flag."""

    draws: bool = setting(
        True,
        "read what feed-forward networks answer: the picture that an INR draws, logits; False: hidden layers alone",
        family=NetworkSpec.family,
    )
    consensus: bool = setting(
        False,
        "compare the answers of classifiers with what the training side's good networks agree on; reads their accuracy",
    )


register(
    BranchEntry(
        role=ENCODER,
        name="complete",
        part="whole network",
        help="what the network does to synthetic signals",
        symmetry="every symmetry of the network",
        build="nfn_transformer.models.complete_encoder:CompleteEncoder",
        builds={
            "feed_forward": "nfn_transformer.models.network_complete_encoder:NetworkCompleteEncoder",
            "transformer": "nfn_transformer.models.standard_encoders:StandardCompleteEncoder",
        },
        config=CompleteConfig,
        check=check_complete,
        reads=("dropout",),
        always={"standardize": True},
        # The encoder reads whole networks and is meant for small zoos.
        defaults={"cls_mode": "no", "emb_mode": "no", "dropout": 0.4, "ensemble": 5},
        several_sizes=True,
        one_thread=True,
    )
)
