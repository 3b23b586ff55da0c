"""Networks of other makers, told by their keys: what a file looks like, and what can be done with it."""

import re
from collections.abc import Mapping

from nfn_transformer.weights.standard_libraries import LIBRARIES

EXPECTED = (
    "expected keys encoder.0.attention.queries.weight, ..., classifier.fc2.bias of blocks without residual "
    "connections, attention biases or affine LayerNorms, or LAYER.weight and LAYER.bias in turn of a chain of linear "
    "layers and 2-D convolutions (docs/zoo_format.md)"
)

_PLAIN = (
    "Zoos of such networks are read where all of them are chains of linear layers and 2-D convolutions: keys "
    "LAYER.weight, LAYER.bias in turn (docs/zoo_format.md)"
)

TRANSFORMER = "a transformer of the zoo"
UNKNOWN_FAMILY = "a network of no family that is read"
FEED_FORWARD_KINDS = ("a CNN", "an INR (a network from coordinates)", "an MLP")

_STANDARD = (
    "Such networks are read where all networks of a zoo are of this kind, and from a folder with a table of files and "
    "scores (--table, docs/zoo_format.md)"
)
STANDARD_KINDS = tuple(library.name for library in LIBRARIES)
"""Kinds of standard transformers, whose checkpoints are read."""

_KINDS = tuple((each.name, re.escape(each.anchor).replace(r"\{\}", r"\d+")) for each in LIBRARIES)
ADVICE = {
    **dict.fromkeys(STANDARD_KINDS, _STANDARD),
    UNKNOWN_FAMILY: "--weights_key NAME names the key of the weights in files that hold them elsewhere",
    TRANSFORMER: "Zoos of such networks are read where all of them are transformers: --where COLUMN=VALUE reads a part",
    **dict.fromkeys(FEED_FORWARD_KINDS, _PLAIN),
    "a LoRA or another adapter": "An adapter is a part of a network: merge it into the network first",
}
"""Kind of network -> what can be done with it."""

_MOST_KEYS = 20_000


def recognize(state: Mapping[object, object]) -> str:
    """Return what the keys and shapes of a state dict look like, one of ADVICE; empty where nothing fits."""
    keys = [key for key, _ in zip(state, range(_MOST_KEYS), strict=False) if isinstance(key, str) and len(key) < 300]
    for name, pattern in _KINDS:
        expression = re.compile(rf"(^|.*\.){pattern}")
        if any(expression.fullmatch(key) for key in keys):
            return name
    if any(".lora_A" in key or ".lora_B" in key for key in keys):
        return "a LoRA or another adapter"
    from torch import Tensor  # flags are checked before PyTorch is imported

    shapes = [tuple(value.shape) for key in keys if isinstance(value := state[key], Tensor) and key.endswith("weight")]
    matrices = [shape for shape in shapes if len(shape) == 2]
    if any(len(shape) == 4 for shape in shapes):
        return "a CNN"
    if not matrices or len(matrices) < len(shapes):
        return ""
    return "an INR (a network from coordinates)" if matrices[0][1] <= 3 else "an MLP"
