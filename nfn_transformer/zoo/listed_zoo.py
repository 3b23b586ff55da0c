"""From a listing to tensors: the sound networks of a zoo, one `Zoo` for each spec, and a report on the others."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.errors import SpecError, ZooError
from nfn_transformer.families.registry import FAMILIES, AnySpec
from nfn_transformer.printable import printable, quoted
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.state_dicts import row_length
from nfn_transformer.zoo.cache import ZooCache
from nfn_transformer.zoo.collecting import RowMatrix, Scratch
from nfn_transformer.zoo.faults import Fault, FaultReport, Reason, Shapes, check_acceptable
from nfn_transformer.zoo.formats.registry import FORMATS
from nfn_transformer.zoo.listed_files import files_of
from nfn_transformer.zoo.listing import ListedNetwork, Listing, ReadRequest
from nfn_transformer.zoo.metadata import ABSENT, HYPERPARAMETERS, class_names, parse_label
from nfn_transformer.zoo.network_facts import FIELDS
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.runs import canonical_epoch
from nfn_transformer.zoo.several_sizes import MixedZoo
from nfn_transformer.zoo.sources import FolderSource, Release, Source, ZipSource
from nfn_transformer.zoo.unpacking import is_archive, unpacked

Facts = tuple[tuple[str, Any], ...]


@dataclass
class NetworkGroup:
    """Networks of one shape and function."""

    family: str
    """name of their family"""
    shapes: Shapes
    """pairs of a key and its shape, in the order of the rows"""
    facts: Facts
    """what shapes do not tell of their spec, see `Family.spec_from_shapes`"""
    names: list[str] = field(default_factory=list)
    """names in the listing"""
    rows: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    """[n, row length] float32"""


@dataclass
class Networks:
    """All networks of a listing that could be read."""

    groups: list[NetworkGroup]
    """in the order in which they came"""
    labels: dict[str, str] = field(default_factory=dict)
    """name -> label, where the file tells it"""
    faults: list[Fault] = field(default_factory=list)
    """faults of the others"""
    entries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """see `FaultReport`"""
    forms: dict[str, str] = field(default_factory=dict)
    """see `FaultReport`"""
    left_out: int = 0
    """checkpoints that do not meet the condition"""


def read_public_zoo(path: Path, request: ReadRequest, problem: ZooError) -> Zoo | MixedZoo:
    """Return the networks of a zoo in one of the registered formats, as one zoo for each spec.

    Args:
        path: folder, zip, or archive of `unpacking`.
        request: which networks are read.
        problem: why the path is no zoo in the layout of docs/zoo_format.md.

    Raises:
        ZooError: no format recognises the path, or the zoo cannot be read.
    """
    if is_archive(path):
        source: Source = FolderSource(unpacked(path))
    elif path.is_dir():
        source = FolderSource(path)
    elif zipfile.is_zipfile(path):
        source = ZipSource(path)
    else:
        raise problem
    try:
        for zoo_format in FORMATS.values():
            if zoo_format.recognize(source, request.dataset):
                return read_listing(source, zoo_format.list(source, request), request)
        if source.metadata_tables:
            raise problem
    finally:
        source.close()
        files_of.cache_clear()
    listed = "; ".join(f"{each.name}: {each.files}" for each in FORMATS.values())
    raise ZooError(f"{problem}; nor is it a public zoo ({listed})")


def read_listing(source: Source, listing: Listing, request: ReadRequest) -> Zoo | MixedZoo:
    """Return the networks of a listing, as one zoo for each spec.

    Raises:
        ZooError: too many networks are faulty.
    """
    release = Release(source, request.dataset, b"", "", "", (), listing.fingerprint)
    way = (request.condition.text, request.columns, request.weights_key, request.labels, sorted(request.facts.items()))
    # Heads may be told by --n_heads, which neither the request nor the fingerprint knows.
    heads = sorted({fact for network in listing.networks for name, fact in network.facts if name == "heads"})
    cache = ZooCache(release, canonical_epoch(request.epoch), 0, f"listed {way}" + (f" {heads}" if heads else ""))
    networks = cache.load(_decode) if request.load_cache else None
    if networks is None:
        networks = _collect(listing, request, cache.folder)
        if networks.groups:
            cache.save(*_encode(networks))
    return _build(source, listing, networks, request, cache)


def _collect(listing: Listing, request: ReadRequest, scratch: Scratch) -> Networks:
    """Return the networks of a listing, read one by one and gathered by shapes and facts."""
    outcomes = tqdm(
        listing.outcomes(),
        desc=f"reading {printable(request.dataset)}",
        total=len(listing.networks),
        unit=" checkpoints",
        disable=None if request.progress else True,  # None: only on a terminal
    )
    networks = Networks([])
    groups: dict[tuple[str, Shapes, Facts], tuple[NetworkGroup, RowMatrix]] = {}
    for listed, outcome in zip(listing.networks, outcomes, strict=True):
        if not outcome.is_chosen:
            networks.left_out += 1
            continue
        if outcome.entries:
            networks.entries[listed.name] = outcome.entries
        if outcome.form:
            networks.forms[listed.name] = outcome.form
        if outcome.fault is not None:
            networks.faults.append(outcome.fault)
            continue
        taken = FAMILIES[outcome.family].listed_facts
        told, own = {name: fact for name, fact in listed.facts if name in taken}, dict(outcome.facts)
        for fact, text in request.facts.items():
            field_name = FIELDS.get(fact, fact)
            if field_name not in taken:
                raise ZooError(f"--{fact} {text}: is no fact of {quoted(listed.name)}, a network of {outcome.family}")
            wanted, found = told[field_name], own.get(field_name)
            if isinstance(wanted, tuple) and isinstance(found, tuple) and len(wanted) == 1:
                wanted *= len(found)  # one number is that of every convolution
            if field_name in own and found != wanted:
                raise ZooError(f"--{fact} {text}: contradicts {quoted(listed.name)}, which has {own[field_name]}")
        facts = tuple(sorted({**told, **own}.items()))
        key = outcome.family, outcome.shapes, facts
        if key not in groups:
            try:
                _spec(*key)
            except SpecError as error:
                networks.faults.append(Fault(listed.name, Reason.SHAPE, str(error)))
                continue
            length = row_length(dict(outcome.shapes))
            groups[key] = NetworkGroup(*key), RowMatrix(length, len(listing.networks), scratch)
        group, matrix = groups[key]
        group.names.append(listed.name)
        matrix.append(outcome)
        if outcome.label is not None:
            networks.labels[listed.name] = outcome.label
    for group, matrix in groups.values():
        group.rows = matrix.rows()
        networks.groups.append(group)
    return networks


def _spec(family: str, shapes: Shapes, facts: Facts) -> AnySpec:
    """Return the spec of networks; one stride or padding is that of every convolution."""
    convolutions = sum(len(shape) == 4 for _, shape in shapes)
    fields = dict(facts)
    for name in ("strides", "paddings"):
        if len(fields.get(name, ())) == 1:
            fields[name] *= convolutions
    return FAMILIES[family].spec_from_shapes(dict(shapes), fields)


def _encode(networks: Networks) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the content and the tensors of a cache."""
    groups = [
        {"family": group.family, "shapes": group.shapes, "facts": group.facts, "names": group.names}
        for group in networks.groups
    ]
    faults = [[fault.name, fault.reason, fault.detail, fault.kind] for fault in networks.faults]
    content = {"groups": groups, "labels": networks.labels, "faults": faults}
    notes = {"entries": networks.entries, "forms": networks.forms, "left_out": networks.left_out}
    return {**content, **notes}, {f"rows{index}": group.rows for index, group in enumerate(networks.groups)}


def _decode(content: dict, tensors: Mapping[str, Tensor]) -> Networks:
    """Return the networks of a cache.

    Raises:
        ValueError, KeyError, TypeError: the two do not fit each other.
    """
    groups = []
    for index, item in enumerate(content["groups"]):
        facts = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in item["facts"])
        shapes = tuple((key, tuple(shape)) for key, shape in item["shapes"])
        rows = tensors[f"rows{index}"]
        if rows.dtype != torch.float32 or rows.ndim != 2 or len(rows) != len(item["names"]):
            raise ValueError(f"rows {tuple(rows.shape)}, expected {len(item['names'])}")
        family = item.get("family", NetworkSpec.family)  # caches of earlier versions have none
        groups.append(NetworkGroup(family, shapes, facts, item["names"], rows))
    faults = [Fault(name, Reason(reason), detail, kind) for name, reason, detail, kind in content["faults"]]
    entries = {name: tuple(keys) for name, keys in content["entries"].items()}
    return Networks(groups, content["labels"], faults, entries, content["forms"], content["left_out"])


def _build(
    source: Source, listing: Listing, networks: Networks, request: ReadRequest, cache: ZooCache
) -> Zoo | MixedZoo:
    """Return the zoos of networks with sound labels.

    Raises:
        ZooError: too many networks are faulty.
    """
    by_name = {listed.name: listed for listed in listing.networks}
    labels: dict[str, float | str] = {}
    faults = [*listing.faults, *networks.faults]
    for name in (name for group in networks.groups for name in group.names):
        text = networks.labels.get(name, by_name[name].label)
        label, fault = parse_label(name, text or "", request.labels)
        if fault is None:
            labels[name] = label
        else:
            faults.append(fault)
    examined = len(listing.networks) + len(listing.faults) - networks.left_out
    if not examined:
        raise ZooError(f"{source.path}: no checkpoint where {request.condition.text}")
    report = FaultReport(
        examined=examined,
        faults=tuple(sorted(faults, key=lambda fault: fault.name)),
        duplicates=listing.duplicates,
        unlisted=listing.unlisted,
        entries=networks.entries,
        forms=networks.forms,
        notes=listing.notes,
    )
    sound = min(labels, default="")

    def write_list() -> Path | None:
        return cache.write_list(report.csv())

    check_acceptable(report, [], source.path, request.dataset, request.allow_faulty, write_list, sound)
    classes = class_names(label for label in labels.values() if isinstance(label, str))
    parts = [
        _zoo(group, [by_name[name] for name in group.names], labels, classes, report, listing.runs_are_told)
        for group in networks.groups
        if any(name in labels for name in group.names)
    ]
    parts[1:] = [replace(part, report=FaultReport(0)) for part in parts[1:]]  # a mixed zoo adds them up
    return parts[0] if len(parts) == 1 else MixedZoo(tuple(parts))


def _zoo(
    group: NetworkGroup,
    listed: list[ListedNetwork],
    labels: Mapping[str, float | str],
    classes: tuple[str, ...],
    report: FaultReport,
    runs_are_told: bool,
) -> Zoo:
    """Return the zoo of a group's networks with labels."""
    kept = [position for position, network in enumerate(listed) if network.name in labels]
    networks = [listed[position] for position in kept]
    values = [labels[network.name] for network in networks]
    absent = (ABSENT,) * len(HYPERPARAMETERS)
    spec = _spec(group.family, group.shapes, group.facts)
    return Zoo(
        spec=spec,
        shapes=dict(group.shapes),
        rows=group.rows if len(kept) == len(listed) else group.rows[kept],
        labels=torch.tensor([classes.index(v) if isinstance(v, str) else v for v in values], dtype=torch.float32),
        names=[network.name for network in networks],
        runs=[network.run for network in networks],
        report=report,
        hyperparameters=torch.tensor([network.hyperparameters or absent for network in networks], dtype=torch.float32),
        epochs=[network.epoch for network in networks],
        classes=classes,
        runs_are_told=runs_are_told,
    )
