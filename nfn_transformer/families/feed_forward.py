"""Feed-forward networks: MLPs, INRs and CNNs, from chains of linear layers and 2-D convolutions."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import FAMILIES, Family
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.feed_forward_networks import layout_of
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.state_dicts import Shape


def network_spec(shapes: Mapping[str, Shape], facts: Mapping[str, Any]) -> NetworkSpec:
    """Return the spec of a network whose state dict has these shapes.

    Args:
        shapes: state dict key -> shape, in the order of the layers or sorted, see `layout_of`.
        facts: fields of `NetworkSpec` that shapes do not tell.

    Raises:
        SpecError: the layers form no chain, or the facts do not fit them.
    """
    layout = layout_of({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, may_flatten=True)
    try:
        return NetworkSpec(
            layout.sizes, layout.kernels, **{"flattened": layout.flattened, **facts, "names": layout.names}
        )
    except ValueError as error:
        raise SpecError(str(error)) from None


def network_shapes(spec: NetworkSpec) -> dict[str, Shape]:
    """Return key -> shape of the state dict of a network with this spec."""
    shapes: dict[str, Shape] = {}
    sides = itertools.pairwise(spec.sizes)
    for (into, out), kernel, rest, name in zip(sides, spec.kernels, spec.trailing, spec.layer_names, strict=True):
        inputs = (into, *kernel) if kernel else (into * (rest or (1,))[0],)
        shapes |= {f"{name}.weight": (out, *inputs), f"{name}.bias": (out,)}
    return shapes


def network_weights(state: Mapping[str, Tensor], spec: NetworkSpec) -> NetworkWeights:
    """Return the weights in stacked state dicts, key -> [b, *shape], as views of them."""
    sides, names = list(itertools.pairwise(spec.sizes)), spec.layer_names
    shapes = [(out, into, *rest) for (into, out), rest in zip(sides, spec.trailing, strict=True)]
    return NetworkWeights(
        spec,
        tuple(state[f"{name}.weight"].reshape(-1, *shape) for name, shape in zip(names, shapes, strict=True)),
        tuple(state[f"{name}.bias"] for name in names),
    )


def network_state_dict(weights: NetworkWeights) -> dict[str, Tensor]:
    """Return the stacked state dicts of b networks: key -> contiguous tensor [b, *shape]."""
    shapes = network_shapes(weights.spec)
    tensors = itertools.chain(*zip(weights.weights, weights.biases, strict=True))
    return {
        key: tensor.reshape(-1, *shape).contiguous()
        for (key, shape), tensor in zip(shapes.items(), tensors, strict=True)
    }


def _spec_from_json(values: Mapping[str, Any]) -> NetworkSpec:
    kernels = tuple(kernel if kernel is None else tuple(map(int, kernel)) for kernel in values["kernels"])
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list | tuple)}
    return NetworkSpec(**{**values, **lists, "kernels": kernels})


FAMILIES.update(
    feed_forward=Family(
        name=NetworkSpec.family,
        description="feed-forward networks (MLPs, INRs, CNNs)",
        spec_from_shapes=network_spec,
        shapes=network_shapes,
        weights=network_weights,
        state_dict=network_state_dict,
        spec_from_json=_spec_from_json,
        listed_facts=("activation", "omega", "offset", "strides", "paddings"),
        probe_inputs="nfn_transformer.features.network_answers:network_probe_inputs",
        logits="nfn_transformer.features.network_answers:network_answers",
    )
)
