"""Descriptions of checkpoints: what `nfn-transformer inspect` prints."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError, ZooError
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.groups.standard_transformer import stream_symmetries, symmetry_dimensions
from nfn_transformer.printable import printable, quoted
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.standard_containers import StandardTransformerWeights
from nfn_transformer.weights.standard_layouts import Recognition, find_library
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import count_parameters, standard_shapes
from nfn_transformer.weights.state_dicts import row_length
from nfn_transformer.zoo.any_checkpoint import read_any_checkpoint
from nfn_transformer.zoo.checkpoint import tensor_problem
from nfn_transformer.zoo.collecting import read_outcomes
from nfn_transformer.zoo.faults import listed
from nfn_transformer.zoo.loose_checkpoints import is_zip_of_checkpoints
from nfn_transformer.zoo.mapped_tensors import MappedTensors, map_checkpoint, shapes_of
from nfn_transformer.zoo.network_checkpoint import find_state_dict
from nfn_transformer.zoo.network_facts import FIELDS
from nfn_transformer.zoo.recognition import EXPECTED, UNKNOWN_FAMILY
from nfn_transformer.zoo.sources import SUFFIXES, FolderSource, looked_for, visible_files
from nfn_transformer.zoo.transformer_checkpoint import facts_in, read_beside_path, recognize_state

_NORMED = ("W_Q", "W_K", "W_V", "W_O", "W_G", "W_1", "W_2")


def describe_checkpoints(paths: Sequence[Path], facts: Mapping[str, Any], weights_key: str | None) -> Iterator[str]:
    """Yield a description of each checkpoint.

    Args:
        paths: files, or folders of checkpoints.
        facts: what the user tells, as fields of specs. Of a folder's networks, each takes those that it has.
        weights_key: key of the state dict in each file.

    Raises:
        ZooError: a path holds no checkpoint, or one cannot be read or understood.
    """
    for path in paths:
        if is_zip_of_checkpoints(path):
            raise ZooError(f"{printable(str(path))}: a zip; expected a checkpoint or a folder: unpack it first")
        if path.is_dir():
            names = sorted(visible_files(FolderSource(path).files(""), SUFFIXES))
            if not names:
                raise ZooError(f"{printable(str(path))}: no checkpoints; looked for {looked_for()} in it")
            files = [path / name for name in names]
        elif path.is_file():
            files = [path]
        else:
            raise ZooError(f"{printable(str(path))}: no such file or folder; expected a checkpoint")
        for file in files:
            try:
                lines = list(_describe(file, facts, weights_key, path.is_file()))
            except (SpecError, ValueError, OSError) as error:
                raise ZooError(f"{printable(str(file))}: {error}") from None
            yield "\n".join([printable(str(file)), *(f"  {line}" for line in lines)])


def _describe(path: Path, facts: Mapping[str, Any], weights_key: str | None, is_alone: bool) -> Iterator[str]:
    """Yield lines about a checkpoint.

    Raises:
        SpecError, ValueError, OSError: it cannot be read or understood.
    """
    loaded = map_checkpoint(path)
    state, form = (loaded, "") if isinstance(loaded, MappedTensors) else find_state_dict(loaded, weights_key)
    state = state if isinstance(state, MappedTensors) else {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if not state:
        raise SpecError("holds no tensors, expected a state dict")
    if find_library(state) is None:
        yield from _describe_other(path, facts, weights_key, is_alone)
        return
    told = _facts_of(StandardTransformerSpec.family, facts, is_alone)
    told |= facts_in(loaded, partial(read_beside_path, path))
    recognition, told = recognize_state(state, told)
    spec = recognition.spec
    yield recognition.library.name + (f", {form}" if form else "")
    yield from _spec_lines(spec, "heads" in told)
    shapes = shapes_of(state)
    numbers = row_length({key: shapes[key] for key in standard_shapes(spec)})
    tied = f", {numbers - count_parameters(spec):,} stored twice" if numbers > count_parameters(spec) else ""
    yield f"parameters: {count_parameters(spec):,}{tied}"
    yield from _symmetry_lines(spec, "heads" in told)
    for key in standard_shapes(spec):
        if problem := tensor_problem(state[key]):
            raise SpecError(f"{quoted(key)} {problem}")
    stacked = {key: state[key][None] for key in standard_shapes(spec)}
    yield from _norm_lines(FAMILIES[spec.family].weights(stacked, spec))
    yield from _open_lines(recognition)


def _describe_other(path: Path, facts: Mapping[str, Any], weights_key: str | None, is_alone: bool) -> Iterator[str]:
    """Yield lines about a checkpoint of another family."""
    files = [(path.name, path.name)]
    outcome = next(iter(read_outcomes(FolderSource(path.parent), files, 0, weights_key, read_any_checkpoint)))
    if outcome.fault is not None:
        is_unknown = outcome.fault.kind == UNKNOWN_FAMILY
        raise SpecError(f"is {UNKNOWN_FAMILY}; {EXPECTED}" if is_unknown else outcome.fault.detail)
    family = FAMILIES[outcome.family]
    taken = _facts_of(outcome.family, facts, is_alone)
    spec = family.spec_from_shapes(dict(outcome.shapes), {**taken, **dict(outcome.facts)})
    kind = "a feed-forward network" if isinstance(spec, NetworkSpec) else "a transformer of the Small-Transformer-Zoo"
    yield kind
    yield f"family: {spec.family}"
    yield f"spec: {spec}"
    yield f"parameters: {row_length(dict(outcome.shapes)):,}"


def _facts_of(family: str, facts: Mapping[str, Any], is_alone: bool) -> dict[str, Any]:
    """Return the facts that networks of a family have; raise SpecError for others of a file that stands alone."""
    taken = {name: value for name, value in facts.items() if name in FAMILIES[family].listed_facts}
    if is_alone and (strange := [name for name in facts if name not in taken]):
        flags = {"heads": "n_heads", **{field: fact for fact, field in FIELDS.items()}}
        raise SpecError(f"--{flags.get(strange[0], strange[0])}: is no fact of a network of {family}")
    return taken


def _spec_lines(spec: StandardTransformerSpec, are_heads_told: bool) -> Iterator[str]:
    """Yield lines about sizes and function."""
    norm = f"{'LayerNorm' if spec.norm == 'layer' else 'RMSNorm'} (epsilon {spec.epsilon:g})"
    yield f"family: {spec.family}, {spec.placement}-norm, {norm}{', causal' if spec.causal else ''}"
    heads = f"{spec.heads} heads of {spec.key}" if are_heads_told else "heads that no shape tells (--n_heads)"
    grouped = f", {spec.groups} groups of keys and values" if spec.groups < spec.heads and are_heads_told else ""
    hidden = f"{'gated ' if spec.gated else ''}MLP of {spec.hidden} ({spec.activation})"
    yield f"blocks: {spec.blocks} of width {spec.width}, {heads}{grouped}, {hidden}"
    inputs = {
        "patches": f"patches of {spec.patch[0]} x {spec.patch[1]} x {spec.channels}",
        "words": f"{spec.vocabulary:,} words",
        "vectors": f"vectors of {spec.features}",
        "stream": "streams",
    }[spec.inputs]
    size = f" of images {spec.image[0]} x {spec.image[1]}" if spec.image != (0, 0) else ""
    rows = f" ({spec.position_rows})" if spec.position_rows else ""
    prefix = f", {spec.prefix_tokens} prefix tokens" if spec.prefix else ""
    yield f"inputs: {inputs}{size}, positions {spec.positions}{rows}{prefix}"
    layers = " -> ".join(map(str, spec.head_sizes)) or "none"
    tied = ", tied to the words" if spec.tied else ""
    pooled = (
        "of every token" if spec.pooling == "none" else f"of the {spec.pooling}" + (" token" * (spec.pooling != "mean"))
    )
    yield f"head: {layers}{tied}, {pooled}, final norm {spec.final_norm}"
    if spec.absent:
        yield f"absent: {', '.join(spec.absent)}"


def _symmetry_lines(spec: StandardTransformerSpec, are_heads_told: bool) -> Iterator[str]:
    """Yield lines about the group that keeps the function."""
    if not are_heads_told:
        yield "symmetries: require --n_heads H"
        return
    dimensions = symmetry_dimensions(spec)
    parts = ", ".join(f"{name} {count:,}" for name, count in dimensions.items() if count)
    share = 100 * sum(dimensions.values()) / count_parameters(spec)
    yield f"symmetries: dimension {sum(dimensions.values()):,} ({share:.1f} % of the parameters): {parts or 'none'}"
    heads = f"{spec.heads}! heads"
    if spec.groups < spec.heads:
        heads = f"{spec.groups}! groups of {spec.heads // spec.groups}! heads"
    yield f"  besides, in each block {heads} and {spec.hidden}! neurons; the stream: {stream_symmetries(spec)[0]}"


def _norm_lines(weights: StandardTransformerWeights) -> Iterator[str]:
    """Yield a table of the root mean squares of the matrices of each block."""
    names = [name for name in _NORMED if vars(weights.blocks[0])[name] is not None]
    yield "root mean squares of the weights:"
    yield "  block " + "".join(f"{name:>10}" for name in names)
    for number, block in enumerate(weights.blocks):
        values = [vars(block)[name] for name in names]
        sizes = [float(torch.linalg.vector_norm(each.float())) / math.sqrt(each.numel()) for each in values]
        finite = "" if all(map(math.isfinite, sizes)) else "  not finite"
        yield f"  {number:5} " + "".join(f"{size:10.4g}" for size in sizes) + finite


def _open_lines(recognition: Recognition) -> Iterator[str]:
    """Yield lines about what is guessed, left out, or was not understood."""
    if recognition.guessed:
        values = ", ".join(f"{name} {vars(recognition.spec)[name]}" for name in recognition.guessed)
        yield f"guessed, as nothing tells it: {values}"
    if recognition.left_out:
        yield f"left out, another head: {listed(recognition.left_out)}"
    yield f"not understood: {listed(recognition.unknown) or 'nothing'}"
