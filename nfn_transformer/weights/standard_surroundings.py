"""Around an `nn.TransformerEncoder`: embedding, positions, class token, final norm and head, by names and shapes.

Users name these as they like. What a tensor is follows from its shape, then from words in its name, then from its place
before or after the encoder.
"""

import re
from collections.abc import Mapping
from typing import Any

from nfn_transformer.weights.containers import Shape
from nfn_transformer.weights.standard_libraries import AUTO, Row

_POSITION, _CLASS = re.compile(r"pos|(^|\.)pe(\.|$)|(^|\.)wpe"), re.compile(r"cls|class_?tok|(^|[._])class$")
_HEAD, _INPUT = re.compile(r"head|class|fc|out|decod|lm|score|logit"), re.compile(r"emb|patch|inp|tok|stem|project")


def find_surroundings(
    shapes: Mapping[str, Shape], known: set[str], base: str, width: int
) -> tuple[list[Row], dict[str, Any]]:
    """Return rows of what is around an encoder, with whole keys, and the fields of the spec that they decide.

    Args:
        shapes: key -> shape of the whole state dict.
        known: keys of the encoder's layers.
        base: text before the numbers of the layers.
        width: D.
    """
    around = [key for key in shapes if key not in known]
    # Files of safetensors have sorted keys, whose order tells nothing.
    start = 0 if around == sorted(around) else min(index for index, key in enumerate(shapes) if key in known)
    rows: list[Row] = []
    linears: list[tuple[str, bool]] = []
    encoder = base.removesuffix("layers.")
    for index, key in enumerate(shapes):
        module, _, kind = key.rpartition(".")
        shape, name = shapes[key], key.lower()
        if key in known:
            continue
        if _CLASS.search(name) and shape in ((1, 1, width), (1, width), (width,)):
            rows.append(Row(key, "prefix", AUTO))
        elif _POSITION.search(name) and len(shape) > 1 and shape[-1] == width:
            rows.append(Row(key, "positions", AUTO))
        elif len(shape) == 4 and shape[0] == width:
            rows += [Row(key, "W_E", "convolution"), Row(f"{module}.bias", "b_E")]
        elif shape == (width,) and len(shapes.get(f"{module}.weight", ())) == 1:
            is_early = index < start and not module.startswith(encoder or " ")
            part = "embedding" if is_early or "emb" in name else "final"
            rows.append(Row(key, f"{part}_{'gain' if kind == 'weight' else 'shift'}"))
        elif kind == "weight" and len(shape) == 2:
            is_head, is_input = bool(_HEAD.search(name)), bool(_INPUT.search(name))
            is_input = (
                is_input if is_head != is_input else index < start or (not start and shape[0] == width != shape[1])
            )
            linears.append((module, is_input))
    rows = _once(rows)
    head: list[str] = []
    read = width
    for module, is_input in linears:
        weight, bias = f"{module}.weight", f"{module}.bias"
        out, into = shapes[weight]
        is_embedded = any(row.roles in ("words", "W_E") for row in rows)
        if is_input and not is_embedded and bias not in shapes and into == width:
            rows.append(Row(weight, "words"))
        elif is_input and not is_embedded and out == width:
            rows += [Row(weight, "W_E", "transposed"), Row(bias, "b_E")]
        elif into == read:
            rows += [Row(weight, f"head.{len(head)}.weight", "transposed"), Row(bias, f"head.{len(head)}.bias")]
            head.append(module)
            read = out
    fields: dict[str, Any] = {"final_norm": "none"}
    if norm := next((row.key for row in rows if row.roles.startswith("final_")), ""):
        is_in_head = head and _parent(norm) == _parent(f"{head[0]}.weight") != ""
        fields["final_norm"] = "after_pooling" if is_in_head else "before_pooling"
    if head:
        fields["head_activations"] = (*["relu"] * (len(head) - 1), "none")
    else:
        fields["pooling"] = "none"
    return rows, fields


def _parent(key: str) -> str:
    """Return the name of the module that holds a tensor's module."""
    return ".".join(key.split(".")[:-2])


def _once(rows: list[Row]) -> list[Row]:
    """Return the first row of each role."""
    return list({row.roles: row for row in reversed(rows)}.values())[::-1]
