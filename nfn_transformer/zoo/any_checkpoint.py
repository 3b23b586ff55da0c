"""Checkpoints of several families in one zoo: each file is read as a network of the first family that it fits."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.checkpoint import Outcome, read_checkpoint
from nfn_transformer.zoo.faults import Fault, Reason, listed
from nfn_transformer.zoo.network_checkpoint import read_network_checkpoint
from nfn_transformer.zoo.recognition import FEED_FORWARD_KINDS, STANDARD_KINDS
from nfn_transformer.zoo.transformer_checkpoint import read_large_transformer, read_transformer_checkpoint


def read_listed_checkpoint(
    name: str, content: bytes, weights_key: str | None = None, read_beside: Callable[[str], bytes] | None = None
) -> Outcome:
    """Return the outcome of reading a feed-forward network or a standard transformer."""
    outcome = read_network_checkpoint(name, content, weights_key, read_beside)
    if outcome.fault is not None and outcome.fault.kind in STANDARD_KINDS:
        return read_transformer_checkpoint(name, content, weights_key, read_beside)
    return outcome


def read_any_checkpoint(
    name: str, content: bytes, weights_key: str | None = None, read_beside: Callable[[str], bytes] | None = None
) -> Outcome:
    """Return the outcome of reading a checkpoint of any family; see `checkpoint.read_checkpoint`.

    Tensors that the family does not read are a fault: the network would be another one without them.
    """
    outcome = read_checkpoint(name, content, weights_key, read_beside)
    if outcome.fault is None:
        fault = None
        if outcome.unknown:
            fault = Fault(name, Reason.SHAPE, f"holds tensors that no predictor reads: {listed(outcome.unknown)}")
        return replace(outcome, fault=fault, family=TransformerSpec.family)
    if outcome.fault.reason == Reason.UNREADABLE:
        return outcome
    if outcome.fault.kind in STANDARD_KINDS:
        return read_transformer_checkpoint(name, content, weights_key, read_beside)
    other = read_network_checkpoint(name, content, weights_key, read_beside)
    return other if other.fault is None or outcome.fault.kind in FEED_FORWARD_KINDS else outcome


LARGE_READERS: Mapping[Callable, Callable[[str, Path, str | None], Outcome]] = dict.fromkeys(
    (read_any_checkpoint, read_listed_checkpoint, read_transformer_checkpoint), read_large_transformer
)
"""Readers of files' contents -> reader of a file that is too large for that."""
