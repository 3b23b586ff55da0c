"""A user's own models as a zoo: a folder or a zip of checkpoints, and a table of their files and scores."""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec
from nfn_transformer.weights.standard_layouts import recognize_transformer
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.zoo.any_checkpoint import read_any_checkpoint
from nfn_transformer.zoo.checkpoint import Outcome
from nfn_transformer.zoo.collecting import Files, read_outcomes
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.listed_zoo import read_listing
from nfn_transformer.zoo.listing import ListedNetwork, Listing, ReadRequest, refuse_flags, told_facts
from nfn_transformer.zoo.metadata import ALL_EPOCHS, HEADS_COLUMN, Columns, Selection, select_rows
from nfn_transformer.zoo.network_facts import FACTS, FIELDS, network_facts
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo
from nfn_transformer.zoo.sources import (
    SUFFIXES,
    FolderSource,
    Release,
    Source,
    ZipSource,
    looked_for,
    visible_files,
)
from nfn_transformer.zoo.user_table import read_csv, read_user_table

CALIBRATE = "calibrate"
"""Name of the flag that names the table of `read_few`."""

_MOST_TRIED = 10


def read_user_zoo(path: Path, table: Path, request: ReadRequest, n_heads: int | None = None) -> Zoo | MixedZoo:
    """Return the networks in a folder or a zip that a table lists, of all families and sizes, as one zoo a spec.

    Args:
        path: folder, links in it included, or zip.
        table: CSV of files and labels, see `user_table.read_user_table`.
        request: which networks are read.
        n_heads: heads of networks whose row does not tell them.

    Raises:
        ZooError: the table or the zoo cannot be read, or too many networks are faulty.
    """
    if not path.is_dir() and not zipfile.is_zipfile(path):
        problem = "not a folder or a zip" if path.exists() else "no such file or folder"
        raise ZooError(f"{path}: {problem}; expected one with the checkpoints of --table {table}")
    source: Source = FolderSource(path) if path.is_dir() else ZipSource(path)
    try:
        stamps = source.files("")
        files = sorted(visible_files(stamps, SUFFIXES), key=lambda name: (name.count("/"), name))
        if not files:
            raise ZooError(f"{printable(str(path))}: no checkpoints; looked for {looked_for()} in it")
        stamp = repr((source.stamp, [(name, stamps[name]) for name in files]))
        release, selection, notes = _select(source, table, files, request, stamp, n_heads)
        zoo = read_listing(source, _listing(release, selection, notes, request, n_heads), request)
        if all(isinstance(spec, NetworkSpec) for spec in zoo.specs):
            refuse_flags("networks without attention", {"n_heads": n_heads})
        return zoo
    finally:
        source.close()


def read_few(
    table: Path, names: Sequence[str], columns: Columns, labels: str, root: Path | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the labels, numbers, of a few known networks, by their names or, of others, by their paths; and notes.

    Args:
        table: CSV of --calibrate, of files and labels, see `user_table.read_user_table`.
        names: names that a row may mean; it may also be the path of a checkpoint, from here or beside the table.
        columns: names of its columns; others are guessed.
        labels: kind of the labels, `accuracy` or `number`.
        root: folder of the named networks, whose files a row means by their names; None where names are paths.

    Raises:
        ZooError: the table cannot be read, names no such network, or a label is none.
    """
    cells = {cell for row in read_csv(table, CALIBRATE)[1] for cell in row if cell.endswith(SUFFIXES)}
    places = {str(place / cell): (place / cell).resolve() for cell in cells for place in (Path(), table.parent)}
    known_places = {Path(name).resolve() for name in names} if root is None else set()
    beside = [
        path
        for path, place in places.items()
        if os.path.isfile(place) and place not in known_places and (root is None or root.resolve() not in place.parents)
    ]
    request = ReadRequest("", ALL_EPOCHS, columns=columns, labels=labels)
    known = list(dict.fromkeys([*names, *sorted(beside)]))
    _, selection, notes = _select(FolderSource(table.parent), table, known, request, "", flag=CALIBRATE)
    missing = [entry.name for entry in selection.entries if entry.name not in selection.paths]
    problems = [f"{quoted(fault.name)}: {fault.detail}" for fault in selection.faults]
    problems += [f"{quoted(name)}: no such network" for name in missing]
    if problems:
        more = f", and {len(problems) - 1} more" if problems[1:] else ""
        raise ZooError(f"--{CALIBRATE} {table}: {problems[0]}{more}")
    return {selection.paths[entry.name]: float(entry.label) for entry in selection.entries}, notes


def _select(
    source: Source,
    table: Path,
    files: Sequence[str],
    request: ReadRequest,
    stamp: str,
    n_heads: int | None = None,
    flag: str = "table",
) -> tuple[Release, Selection, tuple[str, ...]]:
    """Return a table with its files as a data set, its chosen rows, and notes for the screen."""
    own = read_user_table(table, source, files, request.columns, request.labels, request.epoch, flag)
    digest = hashlib.sha256(repr((stamp, own.content)).encode(errors="surrogateescape")).hexdigest()
    release = Release(source, request.dataset, own.content, printable(table.name), "", tuple(files), digest)
    selection = select_rows(release, ALL_EPOCHS, request.condition, n_heads, own.columns, request.labels)
    return release, selection, own.notes


def _listing(
    release: Release, selection: Selection, notes: tuple[str, ...], request: ReadRequest, n_heads: int | None
) -> Listing:
    """Return the networks of a table's rows, with all that rows and flags tell of them.

    Raises:
        ZooError: a row's facts are no facts, or contradict the flags.
    """
    cells = {row.name: row.cells for row in selection.rows}
    networks, files, missing = [], [], []
    told_names = {*request.facts, *(("heads",) if n_heads is not None else ())}
    for entry in selection.entries:
        if entry.name not in selection.paths:
            missing.append(Fault(entry.name, Reason.MISSING, "no such checkpoint"))
            continue
        told, heads = told_facts(cells[entry.name]), entry.heads or n_heads
        told_names |= {*told, *(("heads",) if heads is not None else ())}
        try:
            facts = network_facts(told, request.facts, {}) | ({} if heads is None else {"heads": heads})
        except UserError as error:
            raise ZooError(f"{release.source.path}: {quoted(entry.name)}: {error}") from None
        label = entry.label if isinstance(entry.label, str) else repr(entry.label)
        described = tuple(sorted(facts.items()))
        networks.append(ListedNetwork(entry.name, entry.run, entry.epoch, label, described, entry.hyperparameters))
        files.append((entry.name, selection.paths[entry.name]))
    return Listing(
        networks,
        lambda: read_outcomes(release.source, files, request.n_workers, request.weights_key, read_any_checkpoint),
        release.fingerprint,
        faults=(*selection.faults, *missing),
        notes=(*notes, *selection.notes, *_assumed(release.source, files, told_names)),
        duplicates=selection.duplicates,
        unlisted=selection.unlisted,
    )


def _assumed(source: Source, files: Files, told: set[str]) -> tuple[str, ...]:
    """Return a note on what neither weights nor table nor flags tell of the first network that can be read."""
    for outcome in read_outcomes(source, files[:_MOST_TRIED], 0, None, read_any_checkpoint):
        if outcome.fault is None:
            if outcome.family == NetworkSpec.family and "activation" not in {*told, *dict(outcome.facts)}:
                return ("no column tells the activation: taken for relu (--activation)",)
            if outcome.family == TransformerSpec.family and "heads" not in told:
                return (f"no column {HEADS_COLUMN} tells the attention heads: taken for 2 (--n_heads)",)
            if outcome.family == StandardTransformerSpec.family:
                return _guessed(outcome, told)
            break
    return ()


def _guessed(outcome: Outcome, told: set[str]) -> tuple[str, ...]:
    """Return a note on what neither keys nor table nor flags tell of a standard transformer."""
    recognition = recognize_transformer(dict(outcome.shapes), {"heads": 0, **dict(outcome.facts)})
    flags = {FIELDS.get(fact, fact): fact for fact in FACTS}
    guessed = {name: flags[name] for name in recognition.guessed if name in flags and flags[name] not in told}
    if not guessed:
        return ()
    values = ", ".join(f"{name} {getattr(recognition.spec, name)}" for name in guessed)
    names = ", ".join(f"--{flag}" for flag in guessed.values())
    return (f"nothing tells these facts of {recognition.library.name}, taken for {values} ({names})",)
