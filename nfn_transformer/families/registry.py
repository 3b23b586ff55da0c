"""Registry of families: kinds of networks whose state dicts become weights of one type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.state_dicts import Shape

AnySpec = TransformerSpec | NetworkSpec | StandardTransformerSpec
"""Sizes of whole networks, of any family."""


@dataclass(frozen=True)
class Family:
    """Declaration of a family."""

    name: str
    """`family` of its specs."""
    description: str
    """Its networks, in the plural, for messages."""
    spec_from_shapes: Callable[[Mapping[str, Shape], Mapping[str, Any]], Any]
    """Return the spec of a state dict of these shapes. Facts that shapes do not tell stand beside them: `heads`, or the
    fields of a `NetworkSpec`. Raise SpecError for a shape that does not fit."""
    shapes: Callable[[Any], dict[str, Shape]]
    """Return key -> shape of the state dict of a network with this spec, in the order of its rows."""
    weights: Callable[[Mapping[str, Tensor], Any], Any]
    """Return the weights of networks of a spec in stacked state dicts, key -> [b, *shape], as views of them."""
    state_dict: Callable[[Any], dict[str, Tensor]]
    """Return the stacked state dicts of b networks."""
    spec_from_json: Callable[[Mapping[str, Any]], Any]
    """Return the spec whose `dataclasses.asdict` is given, as JSON keeps it. Raise KeyError, TypeError or ValueError
    for another content."""
    listed_facts: tuple[str, ...] = ()
    """Facts of a zoo's listing that `spec_from_shapes` takes, beside those that a file tells."""
    probe_inputs: str = ""
    """`module:function` that returns the `features.answers.ProbeInputs` of a spec; empty: no consensus reads it.
    The module is imported where a consensus is made. Raise SpecError for networks that are no classifiers."""
    logits: str = ""
    """`module:function` from inputs [n, ...] and the weights of b networks to their logits [b, n, classes]."""


FAMILIES: dict[str, Family] = {}
"""Families by name. A file of this folder adds its own; nothing else names it."""
