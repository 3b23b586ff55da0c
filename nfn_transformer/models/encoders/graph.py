"""Encoder of the whole network as the graph of its computation (`features.graph`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfn_transformer.configuration import COUNT, setting
from nfn_transformer.errors import UserError
from nfn_transformer.models.registry import ENCODER, BranchConfig, BranchEntry, register
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

if TYPE_CHECKING:  # the flags' help needs no PyTorch
    from nfn_transformer.families.registry import AnySpec

HEADS = 4
"""Attention heads of relational attention."""


@dataclass(frozen=True)
class GraphConfig(BranchConfig):
    """Configuration of the encoder; its flags."""

    graph_layers: int = setting(3, "how often neighbours exchange messages", **COUNT)
    graph_dim: int = setting(16, "numbers that each node and each edge carries", **COUNT)
    graph_conv: str = setting(
        "gnn",
        f"gnn, means of messages; attention, relational attention with {HEADS} attention heads",
        choices=("gnn", "attention"),
    )
    graph_probes: int = setting(
        0,
        "learned inputs; what each neuron of a feed-forward network answers to them is read too",
        low=0,
        high=2**31 - 1,
        family=NetworkSpec.family,
    )


def check_graph(config: GraphConfig, spec: "AnySpec", zoo: str) -> None:
    """Raise UserError if the heads of attention do not divide the width, or scales are asked for that it has not."""
    if not isinstance(spec, TransformerSpec) and (config.log_magnitudes or not config.standardize):
        flag = "log_magnitudes True" if config.log_magnitudes else "standardize False"
        raise UserError(
            f"--{flag}: cannot be combined with --enc_mode graph of networks of family {spec.family}, whose edges have "
            "a fixed size"
        )
    if config.graph_conv == "attention" and isinstance(spec, StandardTransformerSpec):
        raise UserError(f"--graph_conv attention: zoo '{zoo}' has networks of family {spec.family}, expected gnn")
    if config.graph_conv == "attention" and config.graph_dim % HEADS:
        raise UserError(
            f"--graph_conv attention --graph_dim {config.graph_dim}: not a multiple of its {HEADS} attention heads"
        )


register(
    BranchEntry(
        role=ENCODER,
        name="graph",
        part="whole network",
        help="neurons and weights as a graph",
        symmetry="permutations",
        build="nfn_transformer.models.graph_encoder:GraphEncoder",
        builds={
            "feed_forward": "nfn_transformer.models.network_graph_encoder:NetworkGraphEncoder",
            "transformer": "nfn_transformer.models.standard_graph_encoder:StandardGraphEncoder",
        },
        edits={"feed_forward": "nfn_transformer.models.network_graph_encoder:NetworkGraphEditor"},
        config=GraphConfig,
        check=check_graph,
        reads=("dropout", "standardize", "log_magnitudes"),
        # The encoder reads whole networks, and learns little from weights that are not standardised.
        defaults={"cls_mode": "no", "emb_mode": "no", "standardize": True},
    )
)
