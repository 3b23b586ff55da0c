"""State dicts of the zoo and their weights: an exact round trip, and flat rows of numbers.

A checkpoint's keys (docs/zoo_format.md) follow `nn.Linear`. It stores the transpose of the paper's matrices
(arXiv 2410.04209): `queries.weight` is [h D_k, D].
"""

import itertools
import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.weights.containers import (
    BlockWeights,
    EmbeddingWeights,
    FeedForwardWeights,
    Shape,
    TransformerWeights,
)
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec

# One way to write each number, and none that is too long for int(): the keys may be anyone's.
_BLOCK_KEY = re.compile(r"encoder\.(0|[1-9]\d{0,3})\.(.+)", re.ASCII)
_EMBEDDING_KEYS = ("embedding.conv1.weight", "embedding.conv1.bias", "embedding.pos_embedding")
_CLASSIFIER_KEYS = ("classifier.fc1.weight", "classifier.fc1.bias", "classifier.fc2.weight", "classifier.fc2.bias")
_BLOCK_KEYS = (
    "attention.queries.weight",
    "attention.keys.weight",
    "attention.values.weight",
    "attention.out_projection.weight",
    "fc1.weight",
    "fc1.bias",
    "fc2.weight",
    "fc2.bias",
)


def is_known_key(key: str) -> bool:
    """Return if a state dict's key belongs to the zoo's architecture."""
    match = _BLOCK_KEY.fullmatch(key)
    return key in _EMBEDDING_KEYS or key in _CLASSIFIER_KEYS or (match is not None and match[2] in _BLOCK_KEYS)


def required_keys(present: Mapping[str, object] | set[str]) -> list[str]:
    """Return the keys that a state dict with the `present` keys must have, in the canonical order.

    These are the keys of every block up to the last one, of the classifier and, if any of it is present, of the
    embedding.
    """
    blocks = {int(match[1]) for key in present if (match := _BLOCK_KEY.fullmatch(key)) and match[2] in _BLOCK_KEYS}
    embedding = _EMBEDDING_KEYS if any(key in present for key in _EMBEDDING_KEYS) else ()
    # A stray huge block number must not make a huge list: blocks beyond the count of blocks seen are gaps anyway.
    count = min(max(blocks, default=0), len(blocks)) + 1
    encoder = [f"encoder.{block}.{key}" for block in range(count) for key in _BLOCK_KEYS]
    return [*embedding, *encoder, *_CLASSIFIER_KEYS]


def spec_from_shapes(shapes: Mapping[str, Shape], heads: int) -> TransformerSpec:
    """Return the spec of a network whose state dict has these shapes; unknown keys are ignored.

    Args:
        shapes: state dict key -> shape.
        heads: number of attention heads in every block, which the shapes do not determine.

    Raises:
        SpecError: a key is missing, or a shape contradicts the others or the number of heads.
    """
    for key in required_keys(shapes):
        if key not in shapes:
            raise SpecError(f"missing key '{key}'")
    count = sum(1 for key in shapes if (match := _BLOCK_KEY.fullmatch(key)) and match[2] == _BLOCK_KEYS[0])
    blocks = []
    for prefix in (f"encoder.{index}." for index in range(count)):
        rows = {}
        for name in ("queries", "values"):
            key = f"{prefix}attention.{name}.weight"
            rows[name], width = _sizes(shapes, key, 2)
            if rows[name] % heads:
                raise SpecError(f"'{key}' has {rows[name]} rows, which {heads} heads do not divide")
        hidden, _ = _sizes(shapes, f"{prefix}fc1.weight", 2)
        blocks.append(BlockSpec(heads, width, rows["queries"] // heads, rows["values"] // heads, hidden))
    hidden, width = _sizes(shapes, "classifier.fc1.weight", 2)
    classes, _ = _sizes(shapes, "classifier.fc2.weight", 2)
    embedding = None
    if _EMBEDDING_KEYS[0] in shapes:
        embedding_width, channels, *patch = _sizes(shapes, "embedding.conv1.weight", 4)
        tokens, _ = _sizes(shapes, "embedding.pos_embedding", 2)
        embedding = EmbeddingSpec(channels, embedding_width, (patch[0], patch[1]), tokens)
    spec = TransformerSpec(tuple(blocks), FeedForwardSpec((width, hidden, classes)), embedding)
    for key, expected in state_dict_shapes(spec).items():
        if tuple(shapes[key]) != expected:
            raise SpecError(f"'{key}' has shape {tuple(shapes[key])}, expected {expected}")
    return spec


def _sizes(shapes: Mapping[str, Shape], key: str, dimensions: int) -> Shape:
    shape = tuple(shapes[key])
    if len(shape) != dimensions or min(shape) < 1:
        raise SpecError(f"'{key}' has shape {shape}, expected {dimensions} dimensions of at least 1")
    return shape


def state_dict_shapes(spec: TransformerSpec) -> dict[str, Shape]:
    """Return key -> shape of the state dict of a network with this spec, in the canonical order."""
    shapes: dict[str, Shape] = {}
    if spec.embedding is not None:
        embedding = spec.embedding
        shapes["embedding.conv1.weight"] = (embedding.width, embedding.channels, *embedding.patch)
        shapes["embedding.conv1.bias"] = (embedding.width,)
        shapes["embedding.pos_embedding"] = (embedding.tokens, embedding.width)
    for index, block in enumerate(spec.blocks):
        prefix = f"encoder.{index}."
        shapes[prefix + "attention.queries.weight"] = (block.heads * block.key, block.width)
        shapes[prefix + "attention.keys.weight"] = (block.heads * block.key, block.width)
        shapes[prefix + "attention.values.weight"] = (block.heads * block.value, block.width)
        shapes[prefix + "attention.out_projection.weight"] = (block.width, block.heads * block.value)
        shapes[prefix + "fc1.weight"] = (block.hidden, block.width)
        shapes[prefix + "fc1.bias"] = (block.hidden,)
        shapes[prefix + "fc2.weight"] = (block.width, block.hidden)
        shapes[prefix + "fc2.bias"] = (block.width,)
    for layer, (columns, rows) in enumerate(itertools.pairwise(spec.classifier.sizes), start=1):
        shapes[f"classifier.fc{layer}.weight"] = (rows, columns)
        shapes[f"classifier.fc{layer}.bias"] = (rows,)
    return shapes


def weights_from_state_dict(state: Mapping[str, Tensor], spec: TransformerSpec) -> TransformerWeights:
    """Return the weights in a state dict as views of its tensors: [b, 1, ...]; unknown keys are ignored.

    ```python
    spec = nfn.spec_from_shapes({key: tuple(tensor.shape) for key, tensor in state.items()}, heads=2)
    weights = nfn.weights_from_state_dict(state, spec)  # weights.blocks[0].W_Q [1, 1, h, D, D_k], ...
    ```

    Args:
        state: key -> tensor of the shape that `state_dict_shapes(spec)` gives, or [b, *shape]
            for the stacked state dicts of b networks.

    Raises:
        SpecError: a key is missing or a shape differs from the spec's.
    """
    parts = {}
    for key, expected in state_dict_shapes(spec).items():
        if key not in state:
            raise SpecError(f"missing key '{key}'")
        tensor = state[key]
        if tuple(tensor.shape[max(tensor.ndim - len(expected), 0) :]) != expected or tensor.ndim > len(expected) + 1:
            raise SpecError(f"'{key}' has shape {tuple(tensor.shape)}, expected {expected}")
        parts[key] = (tensor if tensor.ndim > len(expected) else tensor.unsqueeze(0)).unsqueeze(1)
    blocks = []
    for index, block in enumerate(spec.blocks):
        prefix = f"encoder.{index}."
        projections = (parts[f"{prefix}attention.{name}.weight"] for name in ("queries", "keys", "values"))
        # [b, 1, h D_k, D] to [b, 1, h, D, D_k]
        W_Q, W_K, W_V = (rows.unflatten(2, (block.heads, -1)).transpose(-1, -2) for rows in projections)
        output = parts[prefix + "attention.out_projection.weight"]  # [b, 1, D, h D_v]
        blocks.append(
            BlockWeights(
                W_Q=W_Q,
                W_K=W_K,
                W_V=W_V,
                W_O=output.transpose(-1, -2).unflatten(2, (block.heads, -1)),  # [b, 1, h, D_v, D]
                W_A=parts[prefix + "fc1.weight"].transpose(-1, -2),
                b_A=parts[prefix + "fc1.bias"],
                W_B=parts[prefix + "fc2.weight"].transpose(-1, -2),
                b_B=parts[prefix + "fc2.bias"],
            )
        )
    layers = range(1, len(spec.classifier.sizes))
    classifier = FeedForwardWeights(
        tuple(parts[f"classifier.fc{layer}.weight"] for layer in layers),
        tuple(parts[f"classifier.fc{layer}.bias"] for layer in layers),
    )
    embedding = EmbeddingWeights(*(parts[key] for key in _EMBEDDING_KEYS)) if spec.embedding else None
    return TransformerWeights(tuple(blocks), classifier, embedding)


def state_dict_from_weights(weights: TransformerWeights) -> dict[str, Tensor]:
    """Return the stacked state dicts of b networks: key -> contiguous tensor [b, *shape].

    ```python
    states = nfn.state_dict_from_weights(zoo.weights(torch.arange(8)))  # key -> [8, ...]
    ```

    Raises:
        SpecError: the weights have more than one channel: they are features, not networks.
    """
    if weights.classifier.channels != 1:
        raise SpecError(f"weights have {weights.classifier.channels} channels, expected 1")
    state: dict[str, Tensor] = {}
    if weights.embedding is not None:
        embedding = weights.embedding
        state.update(
            zip(_EMBEDDING_KEYS, (embedding.conv_weight, embedding.conv_bias, embedding.pos_embedding), strict=True)
        )
    for index, block in enumerate(weights.blocks):
        state.update({f"encoder.{index}.{key}": tensor for key, tensor in _block_state(block).items()})
    for layer, (weight, bias) in enumerate(zip(weights.classifier.weights, weights.classifier.biases, strict=True), 1):
        state[f"classifier.fc{layer}.weight"] = weight
        state[f"classifier.fc{layer}.bias"] = bias
    return {key: tensor.squeeze(1).contiguous() for key, tensor in state.items()}


def _block_state(block: BlockWeights) -> dict[str, Tensor]:
    def heads_as_rows(per_head: Tensor) -> Tensor:
        return per_head.transpose(-1, -2).flatten(2, 3)  # [b, 1, h D_k, D]

    return {
        "attention.queries.weight": heads_as_rows(block.W_Q),
        "attention.keys.weight": heads_as_rows(block.W_K),
        "attention.values.weight": heads_as_rows(block.W_V),
        "attention.out_projection.weight": block.W_O.flatten(2, 3).transpose(-1, -2),
        "fc1.weight": block.W_A.transpose(-1, -2),
        "fc1.bias": block.b_A,
        "fc2.weight": block.W_B.transpose(-1, -2),
        "fc2.bias": block.b_B,
    }


def row_length(shapes: Mapping[str, Shape]) -> int:
    """Return the count of numbers in a flat row of tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())


def flatten_state_dict(state: Mapping[str, Tensor], shapes: Mapping[str, Shape], row: Tensor) -> None:
    """Copy a state dict into `row` [row_length(shapes)], key after key in the order of `shapes`."""
    start = 0
    for key, shape in shapes.items():
        stop = start + math.prod(shape)
        row[start:stop].view(shape).copy_(state[key])
        start = stop


def unflatten_rows(rows: Tensor, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Return the stacked state dicts in flat rows [n, row_length(shapes)] as views: key -> [n, *shape]."""
    pieces = torch.split(rows, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {key: piece.unflatten(1, shape) for (key, shape), piece in zip(shapes.items(), pieces, strict=True)}
