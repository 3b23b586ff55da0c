"""Checkpoints outside any zoo's table: files, folders and zips, checked against the sizes that are expected."""

import io
import os
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfn_transformer.errors import SpecError, ZooError
from nfn_transformer.families.registry import FAMILIES, AnySpec
from nfn_transformer.printable import printable
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec
from nfn_transformer.weights.standard_layouts import recognize_transformer
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.state_dicts import (
    Shape,
    spec_from_shapes,
    state_dict_shapes,
    unflatten_rows,
)
from nfn_transformer.zoo.checkpoint import Outcome, read_checkpoint
from nfn_transformer.zoo.collecting import Reader, read_outcomes
from nfn_transformer.zoo.faults import Fault, Reason, Shapes, bounded, kind_lines, shortened
from nfn_transformer.zoo.faults import listed as listed_items
from nfn_transformer.zoo.network_checkpoint import read_network_checkpoint
from nfn_transformer.zoo.runs import fingerprint
from nfn_transformer.zoo.sources import SUFFIXES, FolderSource, Source, ZipSource, looked_for, visible_files
from nfn_transformer.zoo.transformer_checkpoint import read_transformer_checkpoint

MAX_LISTED = 10


@dataclass(frozen=True)
class LooseCheckpoints:
    """Networks of one size."""

    positions: list[int]
    """[n] among all networks that were read"""
    weights: Weights
    """[n, 1, ...], of feed-forward networks [n, ...]"""
    fingerprints: list[str]
    """[n], see `runs.fingerprint`"""


Checkpoint = str | Path | Mapping[str, Tensor]
"""Path of a checkpoint, of a folder or of a zip of checkpoints; or a state dict."""

Supports = Callable[[AnySpec], bool]
"""Predicate of the specs that can be used."""

_READERS: dict[str, Reader] = {
    TransformerSpec.family: read_checkpoint,
    NetworkSpec.family: read_network_checkpoint,
    StandardTransformerSpec.family: read_transformer_checkpoint,
}


def read_loose_checkpoints(
    paths: Sequence[Checkpoint],
    spec: AnySpec,
    supports: Supports | None = None,
    n_heads: int | None = None,
    weights_key: str | None = None,
    sure: Collection[str] = (),
    excluded: list[Fault] | None = None,
) -> tuple[list[str], list[LooseCheckpoints]]:
    """Return the path of each checkpoint that the paths name, and the weights of all, size by size.

    Tensors beside the network's are named in a warning on stderr, and facts that are taken from `spec` in a note.

    Args:
        paths: checkpoint files, folders (every checkpoint below them but embedding.pt) and zips of such folders. A
            state dict may stand for a path.
        spec: sizes that networks are expected to have. What no checkpoint tells of feed-forward networks, as their
            activation, is that of `spec`.
        supports: predicate of other sizes that networks may have; none where it is None.
        n_heads: heads of every network, which no checkpoint tells; the spec's where it is None.
        weights_key: see `containers.find_network`.
        sure: fields of `spec` that hold for all networks which it stands for.
        excluded: takes the faults of checkpoints that cannot be used, where others can; a warning on stderr names them.
            None: any such checkpoint is an error.

    Raises:
        ZooError: a path does not exist or holds no checkpoint, or checkpoints cannot be used; all of these are named.
    """
    names: list[str] = []
    faults: list[Fault] = []
    unread: dict[str, tuple[str, ...]] = {}
    assumed: dict[str, Any] = {}
    by_spec: dict[tuple[AnySpec, Shapes, int], tuple[list[int], list[Outcome]]] = {}
    if isinstance(spec, NetworkSpec) and n_heads is not None:
        family = FAMILIES[spec.family].description
        raise ZooError(f"--n_heads {n_heads}: requires networks with attention, got a predictor of {family}")
    read = _READERS[spec.family]
    for number, path in enumerate(paths):
        outcomes = (
            _state_outcome(number, path, weights_key, read)
            if isinstance(path, Mapping)
            else _outcomes(Path(path), weights_key, read)
        )
        for name, outcome in outcomes:
            if outcome.fault:
                faults.append(replace(outcome.fault, name=name))
                continue
            if outcome.unknown:
                unread[name] = outcome.unknown
            try:
                size: AnySpec
                if isinstance(spec, NetworkSpec):
                    size = _network_spec(dict(outcome.shapes), dict(outcome.facts), spec, supports)
                elif isinstance(spec, StandardTransformerSpec):
                    size, guesses = _standard_spec(dict(outcome.shapes), dict(outcome.facts), spec, supports, n_heads)
                    assumed |= {name: value for name, value in guesses.items() if name not in sure}
                else:
                    size = _spec(dict(outcome.shapes), spec, supports, n_heads)
                    if size != spec and n_heads is None:
                        assumed["heads"] = size.blocks[0].heads
                # Networks of one spec may have other keys, and so another order of numbers. Large ones stay alone.
                group = -1 if outcome.state is None else len(names)
                positions, alike = by_spec.setdefault((size, outcome.shapes, group), ([], []))
                positions.append(len(names))
                alike.append(outcome)
                names.append(name)
            except SpecError as error:
                faults.append(Fault(name, Reason.SHAPE, str(error)))
    if faults:
        lines = [f"  {shortened(f'{fault.name}: {fault.detail}', 250)}" for fault in faults[:MAX_LISTED]]
        more = [f"  and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
        listed = "\n".join([*lines, *more, *kind_lines(faults)])
        if excluded is None or not names:
            raise ZooError(bounded(f"{len(faults)} checkpoint{'s' * (len(faults) > 1)} cannot be used:\n{listed}"))
        excluded.extend(faults)
        counted = f"{len(faults)} of {len(faults) + len(names)} checkpoints cannot be used and are left out"
        print(bounded(f"warning: {counted}:\n{listed}"), file=sys.stderr)
    if unread:
        keys = listed_items(list(dict.fromkeys(key for keys in unread.values() for key in keys)))
        print(
            f"warning: {len(unread)} of {len(names)} checkpoints hold tensors that no predictor reads, so that the "
            f"predictions are of other networks: {keys}; first {shortened(next(iter(unread)))}",
            file=sys.stderr,
        )
    if assumed:
        values = ", ".join(f"{name} {value}" for name, value in assumed.items())
        flags = "--n_heads, or --zoo and a --table with columns of them"
        print(f"note: nothing tells these facts of networks, taken as in the run: {values} ({flags})", file=sys.stderr)
    groups = [_group(size, *each) for (size, *_), each in by_spec.items()]
    return names, groups


def _group(spec: AnySpec, positions: list[int], outcomes: list[Outcome]) -> LooseCheckpoints:
    """Return networks of one spec, at positions among all that were read."""
    if (state := outcomes[0].state) is not None:
        stacked = {key: tensor.float()[None] for key, tensor in state.items()}  # float32 stays in its file
        prints = [fingerprint(*(tensor.flatten().numpy() for tensor in stacked.values()))]
    else:
        matrix = torch.stack([torch.from_numpy(outcome.row) for outcome in outcomes])
        stacked = unflatten_rows(matrix, dict(outcomes[0].shapes))
        prints = [fingerprint(row) for row in matrix.numpy()]
    return LooseCheckpoints(positions, FAMILIES[spec.family].weights(stacked, spec), prints)


def _network_spec(
    shapes: dict[str, Shape], told: dict[str, Any], expected: NetworkSpec, supports: Supports | None
) -> NetworkSpec:
    """Return the spec of a feed-forward network with the function that its file tells, else that of `expected`.

    Raises:
        SpecError: the sizes are neither expected nor supported, or their convolutions' strides cannot be told.
    """
    facts = {name: getattr(expected, name) for name in ("activation", "omega", "offset")}
    own = sum(len(shape) == 4 for shape in shapes.values())
    for name in () if told else ("strides", "paddings", "residuals"):
        values = getattr(expected, name)
        if own != expected.convolutions and values:
            if len(set(values)) > 1 or name == "residuals":
                raise SpecError(f"{own} convolutions, expected {expected.convolutions}: their {name} cannot be told")
            values = values[:1] * own
        facts[name] = values
    spec = FAMILIES[NetworkSpec.family].spec_from_shapes(shapes, facts | told)
    if spec == expected or (supports is not None and supports(spec)):
        return spec
    found, wanted = (f"sizes {each.sizes}, {each.activation}, kernels {each.trailing}" for each in (spec, expected))
    raise SpecError(f"has {found}, expected {wanted}")


def _standard_spec(
    shapes: dict[str, Shape],
    told: dict[str, Any],
    expected: StandardTransformerSpec,
    supports: Supports | None,
    n_heads: int | None,
) -> tuple[StandardTransformerSpec, dict[str, Any]]:
    """Return the spec of a standard transformer; what neither its file nor its keys tell is that of `expected`.

    Beside it stand those fields taken from `expected` that no convention of its library explains.

    Raises:
        SpecError: the network is neither expected nor supported.
    """
    told = ({} if n_heads is None else {"heads": n_heads}) | told
    assumed = {} if "heads" in told else {"heads": expected.heads}
    told |= assumed
    recognition = recognize_transformer(shapes, told)
    guessed = {name: getattr(expected, name) for name in recognition.guessed}
    assumed |= {name: value for name, value in guessed.items() if value != getattr(recognition.spec, name)}
    spec = FAMILIES[expected.family].spec_from_shapes(shapes, {**guessed, **told})
    if spec == expected or (supports is not None and supports(spec)):
        return spec, assumed
    if spec.kind != expected.kind:
        raise SpecError(f"is {recognition.library.name}, a {spec.kind}, expected a {expected.kind}")
    other = next(name for name, value in vars(spec).items() if name != "layout" and value != getattr(expected, name))
    raise SpecError(f"has {other} {getattr(spec, other)}, expected {getattr(expected, other)}")


def _spec(
    shapes: dict[str, Shape], expected: TransformerSpec, supports: Supports | None, n_heads: int | None
) -> TransformerSpec:
    """Return the sizes of a network.

    Raises:
        SpecError: the sizes are neither expected nor supported.
    """
    difference = _difference(shapes, expected)
    heads = expected.blocks[0].heads if expected.blocks else 1
    if difference is None and n_heads in (None, heads):
        return expected
    if supports is not None:
        spec = spec_from_shapes(shapes, n_heads or heads)
        if _difference(shapes, spec) is None and supports(spec):
            return spec
    raise SpecError(difference or f"with {n_heads} heads, expected {heads}")


def _difference(shapes: dict[str, Shape], spec: TransformerSpec) -> str | None:
    """Return the first key whose shape a spec does not expect, as text; None where all fit."""
    expected = state_dict_shapes(spec)
    for key, shape in expected.items():
        if key not in shapes:
            return f"missing key '{key}'"
        if shapes[key] != shape:
            return f"'{key}' has shape {shapes[key]}, expected {shape}"
    extra = [key for key in shapes if key not in expected]
    return f"'{extra[0]}' is not expected: these networks have {len(spec.blocks)} blocks" if extra else None


def _state_outcome(
    number: int, state: Mapping[str, Tensor], weights_key: str | None, read: Reader
) -> list[tuple[str, Outcome]]:
    """Return name and outcome of a state dict, which is read as its file would be."""
    file, name = io.BytesIO(), f"state dict {number}"
    # Copies, as torch.save writes the whole storage of a view.
    copies = {key: value.detach().clone() if isinstance(value, Tensor) else value for key, value in state.items()}
    torch.save(copies, file)
    return [(name, read(name, file.getvalue(), weights_key, None))]


def _outcomes(path: Path, weights_key: str | None, read: Reader) -> Iterator[tuple[str, Outcome]]:
    """Yield path and outcome of each checkpoint in a file, a folder or a zip."""
    if not os.path.exists(path):
        raise ZooError(f"{path}: no such file or folder; expected a checkpoint, a folder or a zip of checkpoints")
    if path.is_file() and not is_zip_of_checkpoints(path):
        files = [(str(path), path.name)]
        outcomes = read_outcomes(FolderSource(path.parent), files, 0, weights_key, read)
        yield from zip([str(path)], outcomes, strict=True)
        return
    source: Source = FolderSource(path) if path.is_dir() else ZipSource(path)
    try:
        members = sorted(visible_files(source.files(""), SUFFIXES))
        if not members:
            raise ZooError(f"{printable(str(path))}: no checkpoints; looked for {looked_for()} in it")
        files = [(f"{path}/{member}", member) for member in members]
        yield from zip([name for name, _ in files], read_outcomes(source, files, 0, weights_key, read), strict=True)
    finally:
        source.close()


def is_zip_of_checkpoints(path: Path) -> bool:
    """Check that a file is a zip that `torch.save` did not write: a checkpoint is a zip as well, of any ending."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.rsplit("/", 1)[-1] != "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
