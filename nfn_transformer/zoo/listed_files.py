"""Listings of zoos with a file for each checkpoint, whose paths tell run, epoch and label."""

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.printable import quoted
from nfn_transformer.zoo.collecting import Reader, read_outcomes
from nfn_transformer.zoo.listing import ListedNetwork, Listing, ReadRequest, chosen_checkpoints, refuse_flags
from nfn_transformer.zoo.metadata import encode, same_value
from nfn_transformer.zoo.network_facts import network_facts
from nfn_transformer.zoo.sources import Source

ROOT = r"(?P<root>(?:[^/]+/)*)"
"""Start of a pattern: the folders around a data set."""


@dataclass(frozen=True)
class ListedFile:
    """A checkpoint's file and what its path tells."""

    path: str
    """path within the source"""
    run: str
    """run, which never stands on two sides of a split"""
    training: str = ""
    """training; that of a copy is its own. Empty: the path"""
    epoch: str = "0"
    """canonical epoch"""
    label: str | None = None
    """label as text; None where the file tells it"""
    cells: Mapping[str, str] = field(default_factory=dict)
    """column -> text, for conditions and hyperparameters"""
    facts: Mapping[str, str] = field(default_factory=dict)
    """facts that its folder tells, see `network_facts.FACTS`"""


@functools.lru_cache(maxsize=1)
def files_of(source: Source) -> Mapping[str, str]:
    """Return path -> stamp of all files of a source that are not hidden."""
    hidden = re.compile(r"(^|/)\.|^__MACOSX/")
    return {path: stamp for path, stamp in source.files("").items() if not hidden.search(path)}


def matching_files(source: Source, dataset: str, *patterns: str) -> list[re.Match[str]]:
    """Return the matches of a data set's files, sorted by path.

    Args:
        source: place of the files.
        dataset: word in the data set's folder, where there are several.
        patterns: each of a whole path, with a group `root`.

    Raises:
        ZooError: there are several data sets, and the word chooses none or several.
    """
    compiled = [re.compile(each, re.ASCII) for each in patterns]
    matches = [match for path in sorted(files_of(source)) for each in compiled if (match := each.fullmatch(path))]
    roots = sorted({match["root"] for match in matches})
    if len(roots) > 1:
        words = {root: re.split(r"[/_.-]", root.lower()) for root in roots}
        chosen = [root for root in roots if dataset.lower() in words[root]]
        chosen = chosen or [root for root in roots if dataset.lower() in root.lower()]
        if len(chosen) != 1:
            there = ", ".join(map(quoted, roots[:10]))
            raise ZooError(f"{source.path}: data set {quoted(dataset)}: expected one folder with it, got {there}")
        matches = [match for match in matches if match["root"] == chosen[0]]
    return matches


def list_files(
    source: Source,
    request: ReadRequest,
    files: Sequence[ListedFile],
    read: Reader,
    default_facts: Mapping[str, str],
    notes: tuple[str, ...] = (),
    fingerprint: str = "",
) -> Listing:
    """Return the files of a data set that a request chooses.

    Args:
        source: place of the files.
        request: the choice.
        files: all checkpoints of the data set, sorted.
        read: reads a file, see `collecting.read_outcomes`.
        default_facts: facts of the format, where neither folder nor user tells others.
        notes: for the screen.
        fingerprint: text that changes when a file that the format read besides does.

    Raises:
        ZooError: no file meets the condition, has the epoch, or facts are contradictory.
    """
    own = {
        "file_column": request.columns.file,
        "epoch_column": request.columns.epoch,
        "run_column": request.columns.run,
    }
    refuse_flags("a zoo whose paths tell what its files are", own)
    files = _meeting(source, request, files)
    if (column := request.columns.label) is not None:
        if any(column not in each.cells for each in files):
            there = ", ".join(map(quoted, sorted(files[0].cells)[:30])) or "none"
            raise ZooError(f"{source.path}: --label_column {column}: no such column; there are {there}")
        files = [replace(each, label=each.cells[column]) for each in files]
    scores = [each.label or "" for each in files] if all(each.label is not None for each in files) else None
    trainings = [each.training or each.path for each in files]
    epochs = [each.epoch for each in files]
    chosen, chosen_notes = chosen_checkpoints(trainings, epochs, request.epoch, scores, str(source.path))
    files = [files[position] for position in chosen]
    try:
        told = {id(each.facts): network_facts(each.facts, request.facts, default_facts) for each in files}
    except UserError as error:
        raise ZooError(f"{source.path}: {error}") from None
    facts = {key: tuple(sorted(values.items())) for key, values in told.items()}
    networks = [
        ListedNetwork(each.path, each.run, each.epoch, each.label, facts[id(each.facts)], tuple(encode(each.cells)))
        for each in files
    ]
    stamps = files_of(source)
    stamp = repr((source.stamp, fingerprint, [(each.path, stamps[each.path]) for each in files]))
    pairs = [(each.path, each.path) for each in files]
    return Listing(
        networks,
        lambda: read_outcomes(source, pairs, request.n_workers, request.weights_key, read),
        hashlib.sha256(stamp.encode(errors="surrogateescape")).hexdigest(),
        notes=(*notes, *chosen_notes),
    )


def _meeting(source: Source, request: ReadRequest, files: Sequence[ListedFile]) -> Sequence[ListedFile]:
    """Return the files that meet the request's condition; one on what files tell is left to their reading."""
    for column, value in request.condition.wanted:
        there = {name for each in files for name in each.cells}
        if column not in there:
            listed = ", ".join(map(quoted, sorted(there)[:30])) or "none"
            raise ZooError(f"{source.path}: --where {column}={value}: no such column; there are {listed}")
        values = {each.cells.get(column, "") for each in files}
        files = [each for each in files if same_value(each.cells.get(column, ""), value)]
        if not files:
            listed = ", ".join(map(quoted, sorted(values)[:20]))
            raise ZooError(f"{source.path}: no checkpoint where {request.condition.text}; {quoted(column)} is {listed}")
    return files
