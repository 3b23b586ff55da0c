"""Encoder of the whole network by learned probes: inputs that are trained, and what the network answers to them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfn_transformer.configuration import COUNT, setting
from nfn_transformer.errors import UserError
from nfn_transformer.models.registry import ENCODER, BranchConfig, BranchEntry, register
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

if TYPE_CHECKING:  # the flags' help needs no PyTorch
    from nfn_transformer.families.registry import AnySpec


@dataclass(frozen=True)
class ProbeConfig(BranchConfig):
    """Configuration of the encoder; its flags."""

    probes: int = setting(64, "learned inputs that each network is asked about", **COUNT)
    probe_generator: str = setting(
        "none",
        "none, probes are trained themselves; linear, a deep linear network makes them of trained codes (ProbeGen)",
        choices=("none", "linear"),
    )
    probe_reads: str = setting(
        "hidden",
        "outputs, answers alone (ProbeGen); hidden, pooled activity of hidden layers too (HiddenProbe)",
        choices=("outputs", "hidden"),
    )
    probe_readout: str = setting(
        "auto",
        "pooled, one map for all probes, which compares answers with learned classes; concat, all answers side by side "
        "(ProbeGen); auto, pooled for classifiers and concat for INRs",
        choices=("auto", "pooled", "concat"),
    )


def check_probe(config: ProbeConfig, spec: "AnySpec", zoo: str) -> None:
    """Raise UserError if a pooled readout has no classes to compare."""
    outputs = 2
    if isinstance(spec, NetworkSpec | StandardTransformerSpec):
        sizes = spec.sizes if isinstance(spec, NetworkSpec) else spec.head_sizes
        outputs = sizes[-1] if sizes else 0
    if config.probe_readout == "pooled" and outputs < 2:
        found = "one output" if outputs else "no head"
        raise UserError(f"--probe_readout pooled: zoo '{zoo}' has networks of {found}, expected at least 2 classes")


register(
    BranchEntry(
        role=ENCODER,
        name="probe",
        part="whole network",
        help="answers to learned inputs",
        symmetry="every symmetry of the network",
        build="nfn_transformer.models.probe_encoder:ProbeEncoder",
        builds=dict.fromkeys(("feed_forward", "transformer"), "nfn_transformer.models.probe_encoder:ProbeEncoder"),
        config=ProbeConfig,
        check=check_probe,
        reads=("dropout",),
        always={"standardize": True},
        defaults={"cls_mode": "no", "emb_mode": "no", "dropout": 0.1},
    )
)
