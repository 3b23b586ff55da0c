"""Checkpoints of feed-forward networks: the state dict in a file, batch norm folded, as a row of numbers."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.printable import quoted
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.state_dicts import is_known_key
from nfn_transformer.zoo.checkpoint import Outcome, key_name, load_state_dict, oversized, row_of, tensor_problem
from nfn_transformer.zoo.containers import INDEX_SUFFIXES, USUAL_NAMES, is_safetensors, read_safetensors, read_shares
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.network_facts import CONFIG_LISTS, config_facts
from nfn_transformer.zoo.recognition import TRANSFORMER, UNKNOWN_FAMILY, recognize

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
_LAYER, _NORM = re.compile(r"(conv|fc|linear|lin|dense)_?(\d*)"), re.compile(r"(bn|norm|batchnorm|batch_norm)_?(\d*)")
_MOST_KEYS = 2_000

BATCH_NORM_EPSILON = 1e-5
"""PyTorch's default, which no state dict tells."""


def read_network_checkpoint(
    name: str, content: bytes, weights_key: str | None = None, read_beside: Callable[[str], bytes] | None = None
) -> Outcome:
    """Return the outcome of reading a feed-forward network's checkpoint; see `checkpoint.read_checkpoint`.

    A file with the `config` of CNN Wild Park tells its network's function.
    """
    size = len(content)
    loaded: Mapping
    facts: dict[str, Any] = {}
    try:
        if name.endswith(INDEX_SUFFIXES) and read_beside is not None:
            loaded, size = read_shares(content, read_beside, load_state_dict)
        else:
            loaded = load_mapping(content)
        state, form = find_state_dict(loaded, weights_key)
        config: object = loaded.get("config")
        if isinstance(config, Mapping) and all(isinstance(config.get(key), list | tuple) for key in CONFIG_LISTS):
            facts = config_facts(config)
    except ValueError as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    outcome = network_outcome(name, state, size)
    form = ", ".join(filter(None, (form, outcome.form)))
    return replace(outcome, form=form, facts=tuple(sorted(facts.items())))


def load_mapping(content: bytes) -> Mapping:
    """Return the mapping in a checkpoint's bytes.

    Raises:
        ValueError: the bytes are damaged, or hold anything but tensors and plain containers.
    """
    return read_safetensors(content) if is_safetensors(content) else load_state_dict(content)


def find_state_dict(content: Mapping, weights_key: str | None = None) -> tuple[Mapping, str]:
    """Return the state dict in a file's mapping, and how it lies there where not plainly.

    Args:
        content: the mapping that the file holds.
        weights_key: key of the state dict; None finds it at the top, or under the first usual name.

    Raises:
        ValueError: there is no such key.
    """
    inner = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)]
    if weights_key is not None:
        if weights_key not in inner:
            holds = ", ".join(map(quoted, inner[:10])) or "none"
            raise ValueError(f"--weights_key {weights_key}: expected one network there, got none; it holds {holds}")
        return content[weights_key], f"under {quoted(weights_key)}"
    if any(isinstance(value, Tensor) for value in content.values()):
        return content, ""
    usual = next((key for key in USUAL_NAMES if key in inner), None)
    return (content, "") if usual is None else (content[usual], f"under {quoted(usual)}")


def scalar_text(value: object) -> str | None:
    """Return a number or a short text of a file's mapping, or of a tensor of one number, as text; None for others."""
    if isinstance(value, Tensor) and not tensor_problem(value.to(torch.float64) if value.numel() == 1 else value):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "nan"
    return str(value) if isinstance(value, str) or value.bit_length() <= 64 else None


def network_outcome(name: str, state: Mapping, size: int) -> Outcome:
    """Return a state dict as a row of numbers, or its fault.

    Args:
        name: of the checkpoint, for the fault.
        state: key -> tensor; entries that are no tensors are named and ignored.
        size: bytes of the file.
    """
    entries = tuple(key_name(key) for key, value in state.items() if not isinstance(value, Tensor))

    def faulty(reason: Reason, detail: str, kind: str = "") -> Outcome:
        return Outcome(Fault(name, reason, detail, kind), entries=entries)

    tensors = {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor) and not (isinstance(key, str) and key.endswith(".num_batches_tracked"))
    }
    if len(tensors) > _MOST_KEYS or not all(isinstance(key, str) and len(key) < 200 for key in tensors):
        return faulty(Reason.UNREADABLE, f"{len(tensors)} tensors, expected at most {_MOST_KEYS} with names")
    if any(map(is_known_key, tensors)):
        return faulty(Reason.MISSING_KEY, "holds encoder blocks, expected a feed-forward network", TRANSFORMER)
    tensors = {_WRAPPERS.sub("", key): value for key, value in tensors.items()}
    for key, value in tensors.items():
        if problem := tensor_problem(value):
            return faulty(Reason.UNREADABLE, f"{quoted(key)} {problem}")
        if 0 in value.shape or value.ndim > 8:
            return faulty(Reason.SHAPE, f"{quoted(key)} has shape {tuple(value.shape)}, expected numbers")
    if problem := oversized(tensors, size):
        return faulty(Reason.UNREADABLE, problem)
    family, form, is_sorted = FAMILIES[NetworkSpec.family], "", list(tensors) == sorted(tensors)
    try:
        folded = fold_batch_norm(tensors)
        tensors = _with_biases({key for key in state if isinstance(key, str)}, folded)
        form = "with zero biases in layers that have none" if len(tensors) > len(folded) else ""
        if is_sorted:  # new biases behind their weights must not pass sorted keys off as the order of the layers
            tensors = dict(sorted(tensors.items()))
        shapes = family.shapes(family.spec_from_shapes({key: tuple(t.shape) for key, t in tensors.items()}, {}))
    except SpecError as error:
        return faulty(Reason.SHAPE if tensors else Reason.MISSING_KEY, str(error), recognize(state) or UNKNOWN_FAMILY)
    row, problem = row_of({key: tensors[key] for key in shapes})
    if row is None:
        return faulty(Reason.NOT_FINITE, problem)
    return Outcome(None, entries=entries, form=form, shapes=tuple(shapes.items()), row=row)


def _with_biases(keys: set[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which layers without a bias have one of zeros, which is the same function.

    Biases of other types are among the file's `keys`. They are not replaced.
    """
    there = {_WRAPPERS.sub("", key) for key in keys} | state.keys()
    filled: dict[str, Tensor] = {}
    for key, tensor in state.items():
        filled[key] = tensor
        bias = f"{key.removesuffix('.weight')}.bias"
        if key.endswith(".weight") and tensor.ndim in (2, 4) and bias not in there:
            filled[bias] = tensor.new_zeros(len(tensor))
    return filled


def fold_batch_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with each batch norm folded into the layer before it, by its running statistics.

    With s = gamma / sqrt(var + eps), the output s (W x + b - mean) + beta has the weight s W and the bias
    s (b - mean) + beta. That is exact at evaluation, directly after a linear layer or a convolution alone.
    `nn.Sequential` numbers the two one after the other. Other modules name them alike, as `conv1` and `bn1`.

    Raises:
        SpecError: a batch norm stands elsewhere, or has another width.
    """
    norms = [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]
    if not norms:
        return dict(state)
    names = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    folded = {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] not in norms}
    for norm in norms:
        mean, var = state[f"{norm}.running_mean"].double(), state.get(f"{norm}.running_var")
        layer = next((name for name in names if f"{name}.weight" in folded and _stands_after(norm, name)), None)
        if layer is None or var is None:
            raise SpecError(
                f"batch norm '{norm}' does not stand directly after a linear layer or a convolution, as '0' and '1' or "
                "'conv1' and 'bn1' do, so that it cannot be folded into one"
            )
        weight = folded[f"{layer}.weight"]
        gamma, beta = state.get(f"{norm}.weight"), state.get(f"{norm}.bias")
        own = {f"{norm}.running_mean": mean, f"{norm}.running_var": var, f"{norm}.weight": gamma, f"{norm}.bias": beta}
        for key, tensor in {**own, f"{layer}.bias": folded.get(f"{layer}.bias")}.items():
            if tensor is not None and (tensor.shape != weight.shape[:1] or not tensor.ndim):
                expected = tuple(weight.shape[:1])
                raise SpecError(f"'{key}' has shape {tuple(tensor.shape)}, expected {expected} as '{layer}'")
        scale = (1.0 if gamma is None else gamma.double()) / (var.double() + BATCH_NORM_EPSILON).sqrt()
        bias = folded.get(f"{layer}.bias", torch.zeros(len(mean))).double()
        shift = scale * (bias - mean) + (0.0 if beta is None else beta.double())
        folded[f"{layer}.weight"] = (weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))).to(weight.dtype)
        # A layer before a batch norm often has no bias: the new one stands directly after the weight.
        folded = dict(_with_new_bias(folded, layer, shift.to(weight.dtype)))
    return folded


def _with_new_bias(state: Mapping[str, Tensor], layer: str, bias: Tensor) -> Iterable[tuple[str, Tensor]]:
    for key, tensor in state.items():
        if key != f"{layer}.bias":
            yield key, tensor
        if key == f"{layer}.weight":
            yield f"{layer}.bias", bias


def _stands_after(norm: str, layer: str) -> bool:
    """Return whether a batch norm stands directly after a layer, as their names tell."""
    norm_parts, layer_parts = norm.split("."), layer.split(".")
    if len(norm_parts) != len(layer_parts) or norm_parts[:-1] != layer_parts[:-1]:
        return False
    one, other = layer_parts[-1], norm_parts[-1]
    if one.isdecimal() and other.isdecimal():
        return len(other) < 9 and int(other) == int(one) + 1
    named, norm_named = _LAYER.fullmatch(one), _NORM.fullmatch(other)
    return named is not None and norm_named is not None and named[2] == norm_named[2]
