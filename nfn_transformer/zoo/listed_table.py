"""Listing of a zoo of feed-forward networks or standard transformers in the layout of docs/zoo_format.md."""

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.printable import quoted
from nfn_transformer.zoo.any_checkpoint import read_listed_checkpoint
from nfn_transformer.zoo.collecting import read_outcomes
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.listed_zoo import read_listing
from nfn_transformer.zoo.listing import ListedNetwork, Listing, ReadRequest, told_facts
from nfn_transformer.zoo.metadata import Selection
from nfn_transformer.zoo.network_facts import network_facts
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo
from nfn_transformer.zoo.sources import Release


def read_table_zoo(
    release: Release, selection: Selection, request: ReadRequest, n_heads: int | None = None
) -> Zoo | MixedZoo:
    """Return the networks that rows of a table describe, as one zoo for each spec.

    Args:
        release: the data set.
        selection: rows of its table; the columns FACTS tell their networks' function.
        request: tells what the table does not.
        n_heads: heads of networks whose row does not tell them.

    Raises:
        ZooError: a row's facts are no facts, contradict the request's, or too many networks are faulty.
    """
    cells = {row.name: row.cells for row in selection.rows}
    networks, files, missing = [], [], []
    tells_activation = "activation" in request.facts
    for entry in selection.entries:
        if entry.name not in selection.paths:
            missing.append(Fault(entry.name, Reason.MISSING, f"no such file under '{release.folder}/'"))
            continue
        told = told_facts(cells[entry.name])
        tells_activation = tells_activation or "activation" in told
        try:
            facts = network_facts(told, request.facts, {})
            if heads := entry.heads or n_heads:
                facts["heads"] = heads
        except UserError as error:
            raise ZooError(f"{release.source.path}: {quoted(entry.name)}: {error}") from None
        label = entry.label if isinstance(entry.label, str) else repr(entry.label)
        networks.append(
            ListedNetwork(
                entry.name, entry.run, entry.epoch, label, tuple(sorted(facts.items())), entry.hyperparameters
            )
        )
        files.append((entry.name, selection.paths[entry.name]))
    assumed = () if tells_activation else ("no column tells the activation: taken for relu (--activation)",)
    listing = Listing(
        networks,
        lambda: read_outcomes(release.source, files, request.n_workers, request.weights_key, read_listed_checkpoint),
        release.fingerprint,
        faults=(*selection.faults, *missing),
        runs_are_told=selection.runs_are_told,
        notes=(*selection.notes, *assumed),
        duplicates=selection.duplicates,
        unlisted=selection.unlisted,
    )
    return read_listing(release.source, listing, request)
