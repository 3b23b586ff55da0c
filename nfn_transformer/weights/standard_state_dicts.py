"""State dicts of standard transformers and their weights: an exact round trip in the keys and forms of any library."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import Shape
from nfn_transformer.weights.standard_containers import (
    StandardBlockWeights,
    StandardTransformerWeights,
    standard_tensors,
)
from nfn_transformer.weights.standard_spec import LayoutEntry, StandardTransformerSpec, block_shapes, rest_shapes


@dataclass(frozen=True)
class Form:
    """Form in which a state dict holds a tensor; both functions return views where a view will do."""

    shape: Callable[[Shape, StandardTransformerSpec], Shape]
    """Return the shape that is stored, from that of the network's tensor: [inputs, outputs], [rows, D] or [numbers]."""
    flat: Callable[[Shape], Shape]
    """Return the shape of the network's tensor from the one that is stored; empty for a shape of another form."""
    read: Callable[[Tensor, StandardTransformerSpec], Tensor]
    """Return the network's tensors [b, ...] from stored ones [b, ...]."""
    write: Callable[[Tensor, StandardTransformerSpec], Tensor]
    """Return stored tensors [b, ...] from the network's."""


def _pixels(spec: StandardTransformerSpec) -> Shape:
    return (spec.channels, *spec.patch)


FORMS = {
    "plain": Form(lambda shape, spec: shape, lambda shape: shape, lambda x, spec: x, lambda x, spec: x),
    "transposed": Form(
        lambda shape, spec: shape[::-1],
        lambda shape: shape[::-1] if len(shape) == 2 else (),
        lambda x, spec: x.transpose(1, 2),
        lambda x, spec: x.transpose(1, 2),
    ),
    "batched": Form(
        lambda shape, spec: (1, *shape),
        lambda shape: shape[1:] if len(shape) == 3 and shape[0] == 1 else (),
        lambda x, spec: x[:, 0],
        lambda x, spec: x[:, None],
    ),
    "middle": Form(
        lambda shape, spec: (shape[0], 1, shape[1]),
        lambda shape: shape[::2] if len(shape) == 3 and shape[1] == 1 else (),
        lambda x, spec: x[:, :, 0],
        lambda x, spec: x[:, :, None],
    ),
    "single": Form(
        lambda shape, spec: shape[1:],
        lambda shape: (1, *shape) if len(shape) == 1 else (),
        lambda x, spec: x[:, None],
        lambda x, spec: x[:, 0],
    ),
    "convolution": Form(
        lambda shape, spec: (shape[1], *_pixels(spec)),
        lambda shape: (math.prod(shape[1:]), shape[0]) if len(shape) == 4 else (),
        lambda x, spec: x.flatten(2).transpose(1, 2),
        lambda x, spec: x.transpose(1, 2).unflatten(2, _pixels(spec)),
    ),
    # Of patches (row, column, channel), as einops' "(p1 p2 c)" of vit_pytorch.
    "pixels_last": Form(
        lambda shape, spec: shape[::-1],
        lambda shape: shape[::-1] if len(shape) < 3 else (),
        lambda x, spec: x.unflatten(-1, (*spec.patch, spec.channels)).movedim(-1, -3).flatten(-3).movedim(-1, 1),
        lambda x, spec: x.unflatten(1, _pixels(spec)).movedim((1, 2, 3), (-1, -3, -2)).flatten(-3),
    ),
}
"""Forms by name."""


def layout_entries(spec: StandardTransformerSpec) -> tuple[LayoutEntry, ...]:
    """Return the layout of a spec's state dicts; without one, a key for each of the network's own tensors."""
    if spec.layout:
        return spec.layout
    blocks = (LayoutEntry(f"blocks.{{}}.{role}", role, "plain") for role in block_shapes(spec))
    return (*(LayoutEntry(role, role, "plain") for role in rest_shapes(spec)), *blocks)


def _keys(spec: StandardTransformerSpec) -> Iterator[tuple[str, LayoutEntry, int | None]]:
    """Yield each key of a state dict, its entry, and the number of its block."""
    entries = layout_entries(spec)
    in_blocks = [entry for entry in entries if "{}" in entry.key]
    start = entries.index(in_blocks[0])
    yield from ((entry.key, entry, None) for entry in entries[:start])
    for block in range(spec.blocks):
        yield from ((entry.key.replace("{}", str(block)), entry, block) for entry in in_blocks)
    yield from ((entry.key, entry, None) for entry in entries[start:] if "{}" not in entry.key)


def standard_shapes(spec: StandardTransformerSpec) -> dict[str, Shape]:
    """Return key -> shape of the state dict of a network with this spec.

    Raises:
        SpecError: its layout lacks a tensor of the network.
    """
    own, shapes = (rest_shapes(spec), block_shapes(spec)), dict[str, Shape]()
    for key, entry, block in _keys(spec):
        there = own[block is not None]
        parts = [there.get(role, ()) for role in entry.roles.split()]
        if not all(parts):
            raise SpecError(f"'{key}' holds '{entry.roles}', which networks of this function do not have")
        whole = (*parts[0][:-1], sum(shape[-1] for shape in parts))
        shapes[key] = FORMS[entry.form].shape(whole, spec)
    roles = {role for entry in layout_entries(spec) for role in entry.roles.split()}
    if missing := [role for group in own for role in group if role not in roles]:
        raise SpecError(f"no key holds '{missing[0]}' of a transformer with {spec.blocks} blocks of width {spec.width}")
    return shapes


def standard_weights(state: Mapping[str, Tensor], spec: StandardTransformerSpec) -> StandardTransformerWeights:
    """Return the weights in stacked state dicts, key -> [b, *shape], as views of them where the form allows it."""
    shapes, rest_shape = block_shapes(spec), rest_shapes(spec)
    rest: dict[str, Tensor] = {}
    blocks: list[dict[str, Tensor]] = [{} for _ in range(spec.blocks)]
    for key, entry, block in _keys(spec):
        roles, tensors = entry.roles.split(), rest if block is None else blocks[block]
        whole = FORMS[entry.form].read(state[key], spec)
        widths = [(rest_shape if block is None else shapes)[role][-1] for role in roles]
        for role, tensor in zip(roles, whole.split(widths, dim=-1), strict=True):
            tensors.setdefault(role, tensor)
    like = blocks[0]["W_Q"]
    layers = range(len(spec.head_sizes) - 1)
    matrices = [rest.get(f"head.{layer}.weight") for layer in layers]
    prefix = [rest[f"prefix.{index}"] for index in range(len(spec.prefix))]
    return StandardTransformerWeights(
        spec=spec,
        blocks=tuple(_block(tensors, spec) for tensors in blocks),
        **{role: rest.get(role) for role in ("words", "token_types", "W_E", "positions")},
        b_E=_filled(rest, "b_E", spec.width, like) if "W_E" in rest else None,
        **_norm(rest, "patch", spec.token_inputs if spec.patch_norm else 0, like),
        **_norm(rest, "embedding", spec.width if spec.embedding_norm else 0, like),
        **_norm(rest, "final", spec.width if spec.final_norm != "none" else 0, like),
        **_norm(rest, "head", spec.head_sizes[-2] if spec.head_norm else 0, like),
        prefix=torch.cat(prefix, dim=1) if len(prefix) > 1 else prefix[0] if prefix else None,
        head_weights=tuple(rest["words"].transpose(1, 2) if W is None else W for W in matrices),
        head_biases=tuple(_filled(rest, f"head.{s}.bias", spec.head_sizes[s + 1], like) for s in layers),
    )


def _filled(tensors: Mapping[str, Tensor], role: str, numbers: int, like: Tensor) -> Tensor:
    """Return a vector [b, numbers] of the networks, or zeros; ones of a gain."""
    if role in tensors:
        return tensors[role]
    return like.new_full((len(like), numbers), float("gain" in role))


def _norm(tensors: Mapping[str, Tensor], name: str, numbers: int, like: Tensor) -> dict[str, Tensor]:
    roles = (f"{name}_gain", f"{name}_shift") if numbers else ()
    return {role: _filled(tensors, role, numbers, like) for role in roles}


def _block(tensors: Mapping[str, Tensor], spec: StandardTransformerSpec) -> StandardBlockWeights:
    sizes = {"Q": (spec.heads, spec.key), "K": (spec.groups, spec.key), "V": (spec.groups, spec.value)}
    like, found = tensors["W_Q"], dict[str, Tensor]()
    for name, (heads, size) in sizes.items():
        found[f"W_{name}"] = tensors[f"W_{name}"].unflatten(2, (heads, size)).transpose(1, 2)
        found[f"b_{name}"] = _filled(tensors, f"b_{name}", heads * size, like).unflatten(1, (heads, size))
    vectors = dict.fromkeys(("gain_1", "shift_1", "b_O", "gain_2", "shift_2", "b_2"), spec.width)
    vectors |= {"b_1": spec.hidden, **({"b_G": spec.hidden} if spec.gated else {})}
    return StandardBlockWeights(
        **found,
        **{role: _filled(tensors, role, numbers, like) for role, numbers in vectors.items()},
        W_O=tensors["W_O"].unflatten(1, (spec.heads, spec.value)),
        **{role: tensors[role] for role in ("W_1", "W_2", *(("W_G",) if spec.gated else ()))},
    )


def standard_state_dict(weights: StandardTransformerWeights) -> dict[str, Tensor]:
    """Return the stacked state dicts of b networks: key -> contiguous tensor [b, *shape].

    Raises:
        SpecError: a tensor that the state dicts lack does something: a bias or a shift is not 0, a gain not 1.
    """
    spec = weights.spec
    rest, blocks = standard_tensors(weights)
    for part, there in ((weights, rest), *zip(weights.blocks, blocks, strict=True)):
        for role, tensor in vars(part).items():
            is_vector = role.startswith("b_") or role.endswith(("gain", "shift")) or role[:5] in ("gain_", "shift")
            is_missing = is_vector and isinstance(tensor, Tensor) and role not in there
            if is_missing and not bool((tensor == float("gain" in role)).all()):
                raise SpecError(f"'{role}' does something, but the state dict has no key for it")
    for layer, tensor in enumerate(weights.head_biases):
        if f"head.{layer}.bias" not in rest and bool(tensor.any()):
            raise SpecError(f"'head.{layer}.bias' is not 0, but the state dict has no key for it")
    state = {}
    for key, entry, block in _keys(spec):
        tensors = rest if block is None else blocks[block]
        parts = [tensors[role] for role in entry.roles.split()]
        whole = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        state[key] = FORMS[entry.form].write(whole, spec).contiguous()
    return state


def count_parameters(spec: StandardTransformerSpec) -> int:
    """Return the count of numbers of a network; tied ones count once."""
    rest = sum(map(math.prod, rest_shapes(spec).values()))
    return rest + spec.blocks * sum(map(math.prod, block_shapes(spec).values()))
