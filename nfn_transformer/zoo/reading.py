"""From a zoo's folder or zip to tensors: the sound checkpoints of one epoch, and a report on the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.bundled import find_bundled
from nfn_transformer.errors import SpecError, ZooError
from nfn_transformer.families.registry import FAMILIES, AnySpec
from nfn_transformer.families.transformer import DEFAULT_HEADS
from nfn_transformer.printable import printable, quoted
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.state_dicts import (
    Shape,
    spec_from_shapes,
    state_dict_shapes,
    unflatten_rows,
)
from nfn_transformer.zoo.cache import ZooCache, decode_collection, encode_collection
from nfn_transformer.zoo.checkpoint import Outcome
from nfn_transformer.zoo.collecting import Collection, begins_with_transformer, collect, read_outcomes
from nfn_transformer.zoo.faults import Fault, FaultReport, Reason, check_acceptable, listed
from nfn_transformer.zoo.listing import ReadRequest, refuse_flags
from nfn_transformer.zoo.metadata import Columns, Condition, Selection, class_names, select_rows
from nfn_transformer.zoo.runs import canonical_epoch
from nfn_transformer.zoo.sources import NoReleaseError, Release, open_release

if TYPE_CHECKING:
    from nfn_transformer.zoo.several_sizes import MixedZoo


@dataclass(frozen=True)
class ZooOrigin:
    """Arguments of `read_zoo` that decide which networks are read."""

    data_path: str
    """absolute path"""
    dataset: str
    ckpt_epoch: str = "75"
    n_heads: int | None = None
    allow_faulty: bool = False
    where: str = ""
    all_sizes: bool = False
    """True for `several_sizes.read_all_sizes`"""
    file_column: str | None = None
    """see `metadata.Columns`, as of the other columns"""
    epoch_column: str | None = None
    label_column: str | None = None
    run_column: str | None = None
    weights_key: str | None = None
    labels: str = "accuracy"
    """see `metadata.LABELS`"""
    activation: str | None = None
    """see `network_facts.FACTS`, as of the other facts"""
    omega: str | None = None
    offset: str | None = None
    stride: str | None = None
    padding: str | None = None
    norm_placement: str | None = None
    norm_epsilon: str | None = None
    causal_attention: str | None = None
    token_pooling: str | None = None
    token_positions: str | None = None
    final_norm: str | None = None
    table: str | None = None
    """absolute path of a user's own table, see `user_zoo.read_user_zoo`"""


@dataclass(frozen=True)
class Zoo:
    """Sound checkpoints of one epoch of a zoo, sorted by file name."""

    spec: AnySpec
    """sizes of every network"""
    shapes: dict[str, Shape]
    """state dict key -> shape"""
    rows: Tensor
    """[n, row length] float32, each network's whole state dict in the order of `shapes`"""
    labels: Tensor
    """[n] float32: test accuracies in [0, 1], other numbers, positions in `classes`, or 0 without labels"""
    names: list[str]
    """file names"""
    runs: list[str]
    """run ids"""
    report: FaultReport
    """faults of the checkpoints that were left out"""
    hyperparameters: Tensor
    """[n, len(HYPERPARAMETERS)] float32, see `metadata.encode`"""
    epochs: list[str] = field(default_factory=list)
    """canonical epochs"""
    classes: tuple[str, ...] = ()
    """names of the labels' classes; empty where labels are numbers"""
    runs_are_told: bool = True
    """see `metadata.Selection`"""
    origin: ZooOrigin | None = None
    """place where the zoo was read; None for a zoo that was made in memory"""

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Zoo({len(self)} networks, {self.spec})"

    @property
    def specs(self) -> tuple[AnySpec, ...]:
        """All sizes: one."""
        return (self.spec,)

    def weights(self, index: Tensor) -> Weights:
        """Return the weights [b, 1, ...] of the checkpoints `index` [b], as views of one copy of their rows."""
        return self.weights_of(self.rows[index])

    def weights_of(self, rows: Tensor) -> Weights:
        """Return the weights [b, 1, ...] in rows [b, row length] of this zoo, as views of them."""
        return FAMILIES[self.spec.family].weights(unflatten_rows(rows, self.shapes), self.spec)

    def by_size(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor, "Zoo"]]:
        """Yield the checkpoints `index` [b] size by size.

        Yields:
            For each size the positions [m] in `index`, the networks' rows [m, row length], and the zoo whose
            `weights_of` reads these rows.
        """
        yield torch.arange(len(index)), self.rows[index], self

    def one_of_each_size(self, index: Tensor) -> list[Weights]:
        """Return the weights [1, 1, ...] of the first of the checkpoints `index` [b] of each size."""
        return [self.weights_of(self.rows[index[:1]])]


def read_zoo(
    data_path: str | Path,
    dataset: str,
    ckpt_epoch: str | int = "75",
    n_heads: int | None = None,
    allow_faulty: bool = False,
    load_cache: bool = True,
    n_workers: int = 0,
    progress: bool = True,
    where: str = "",
    columns: Columns | None = None,
    weights_key: str | None = None,
    labels: str = "accuracy",
    facts: Mapping[str, str] | None = None,
    table: str | Path | None = None,
) -> "Zoo | MixedZoo":
    """Read the checkpoints of one epoch of a zoo: one `Zoo`, or a `MixedZoo` of networks of several sizes or functions.

    ```python
    zoo = nfn.read_zoo("data/digits_transformers.zip", "digits")
    len(zoo), zoo.labels.mean(), zoo.spec
    weights = zoo.weights(torch.arange(8))  # of the first 8 networks
    ```

    Args:
        data_path: the zoo's folder or zip; or a public zoo in a format of `zoo.formats`, a .tar.xz file of arrays too.
            `data/digits_transformers.zip` is found from every folder.
        dataset: any name that has a table `metadata/NAME.csv`; in a public zoo, its folder.
        ckpt_epoch: a number, `best` (best and best1), `last` or `all`. In a zoo without epoch 75 that means the last
            checkpoint of each run, as `last` does.
        n_heads: heads of checkpoints whose row does not tell (2 without it); must agree with rows that do.
        allow_faulty: use the sound checkpoints even where more than 5 % are faulty.
        load_cache: use the cache of an earlier call on the same files; the cache is written either way.
        n_workers: processes that read, at most as many as there are cores; 0 reads in this one.
        progress: show a progress bar on stderr, where that is a terminal.
        where: condition on the metadata, see `metadata.Condition`; other rows are as if the table lacked them.
        columns: names of the table's columns other than the release's.
        weights_key: key of the weights in each file; None finds them, see `containers.find_network`.
        labels: `accuracy`, a number in [0, 1]; `number`, any finite one; `class`, the name of a class; or `none`.
        facts: what neither weights nor table tell of networks, as text: `network_facts.FACTS`.
        table: CSV of files and labels, for checkpoints of any sizes in any folder or zip, see
            `user_table.read_user_table`. `dataset` is a name of your choice then.

    Raises:
        ZooError: the zoo, the data set, the epoch or a column does not exist, heads contradict each other, or too many
            checkpoints are faulty.
    """
    condition, path = Condition.parse(where), Path(data_path)
    path = path if path.exists() else find_bundled(path)
    names = {f"{role}_column": name for role, name in asdict(columns or Columns()).items()}
    place, epoch = str(path.resolve()), str(ckpt_epoch)
    told: dict[str, Any] = dict(facts or {})
    origin = ZooOrigin(place, dataset, epoch, n_heads, allow_faulty, condition.text, False, **names)
    origin = replace(origin, weights_key=weights_key, labels=labels, **told)
    choice = (columns or Columns(), weights_key, labels, told, allow_faulty, load_cache, n_workers, progress)
    if table is not None:
        from nfn_transformer.zoo.user_zoo import read_user_zoo

        own = read_user_zoo(path, Path(table), ReadRequest(dataset, epoch, condition, *choice), n_heads)
        return replace(own, origin=replace(origin, table=str(Path(table).resolve())))
    with ExitStack() as stack:
        try:
            release = stack.enter_context(open_release(path, dataset))
        except NoReleaseError as problem:
            from nfn_transformer.zoo.listed_zoo import read_public_zoo

            public = read_public_zoo(path, ReadRequest(dataset, epoch, condition, *choice), problem)
            refuse_flags("networks without attention", {"n_heads": n_heads})
            return replace(public, origin=origin)
        selection = select_rows(release, str(ckpt_epoch), condition, n_heads, columns, labels)
        default = DEFAULT_HEADS if n_heads is None else n_heads
        all_tell = all(entry.heads is not None for entry in selection.entries)
        way = f"{columns} {weights_key}" if weights_key is not None or (columns or Columns()) != Columns() else ""
        # Rows whose label is a fault are not read, so that the kind of labels decides what the cache holds.
        cache_condition = " ".join(filter(None, (condition.text, way, "" if labels == "accuracy" else labels)))
        cache = ZooCache(release, canonical_epoch(str(ckpt_epoch)), 0 if all_tell else default, cache_condition)
        cached = cache.load(decode_collection) if load_cache else None
        collection = cached
        if collection is None:
            present = [entry for entry in selection.entries if entry.name in selection.paths]
            files = [(entry.name, selection.paths[entry.name]) for entry in present]
            if not begins_with_transformer(release.source, files, weights_key):
                from nfn_transformer.zoo.listed_table import read_table_zoo

                request = ReadRequest(dataset, epoch, condition, *choice)
                listed_zoo = read_table_zoo(release, selection, request, n_heads)
                if all(isinstance(spec, NetworkSpec) for spec in listed_zoo.specs):
                    refuse_flags("networks without attention", {"n_heads": n_heads})
                return replace(listed_zoo, origin=origin)
            outcomes = read_outcomes(release.source, files, n_workers, weights_key)
            heads = [entry.heads or default for entry in present]
            collection = _collect(release, selection, heads, outcomes, cache, progress)
        if told:
            refuse_flags("transformers", told)
        zoo = _build_zoo(release, selection, collection, allow_faulty, cache)
        if cached is None:
            cache.save(*encode_collection(collection))
    return replace(zoo, origin=origin)


def _collect(
    release: Release,
    selection: Selection,
    heads: Sequence[int],
    outcomes: Iterable[Outcome],
    cache: ZooCache,
    progress: bool,
) -> Collection:
    """Return the checkpoints of a selection's files, with a progress bar; those without a file are faults."""
    names = [entry.name for entry in selection.entries if entry.name in selection.paths]
    shown = tqdm(
        outcomes,
        desc=f"reading {printable(release.dataset)}",
        total=len(names),
        unit=" checkpoints",
        disable=None if progress else True,  # None: only on a terminal
    )
    collection = collect(names, heads, shown, cache.folder)
    collection.faults.extend(
        Fault(entry.name, Reason.MISSING, f"no such file under '{release.folder}/'")
        for entry in selection.entries
        if entry.name not in selection.paths
    )
    return collection


def labels_among(zoo: "Zoo | MixedZoo", classes: Sequence[str]) -> Tensor:
    """Return the labels [n] of a zoo as positions in other class names than its own; numbers stay as they are.

    Raises:
        ZooError: a class of the zoo is not among them.
    """
    if tuple(classes) == zoo.classes:
        return zoo.labels
    position = {name: index for index, name in enumerate(classes)}
    for index, name in enumerate(zoo.classes):
        if name not in position:
            count = int((zoo.labels == index).sum())
            names = listed(classes)
            raise ZooError(f"{count} networks are of class {quoted(name)}, expected one of {names}")
    return torch.tensor([position[name] for name in zoo.classes], dtype=torch.float32)[zoo.labels.long()]


def _build_zoo(
    release: Release, selection: Selection, collection: Collection, allow_faulty: bool, cache: ZooCache
) -> Zoo:
    """Return the sound checkpoints with their labels.

    Raises:
        ZooError: the zoo is too faulty to be used, or the most common shapes do not fit each other.
    """
    report = FaultReport(
        examined=len(selection.entries) + len(selection.faults),
        faults=tuple(sorted([*selection.faults, *collection.faults], key=lambda fault: fault.name)),
        stray_keys=collection.stray_keys,
        duplicates=selection.duplicates,
        unlisted=selection.unlisted,
        entries=collection.entries,
        forms=collection.forms,
        notes=selection.notes,
    )

    def write_list() -> Path | None:
        return cache.write_list(report.csv())

    first = collection.names[0] if collection.names else ""
    check_acceptable(
        report, collection.signatures, release.source.path, release.dataset, allow_faulty, write_list, first
    )
    majority, _ = collection.signatures[0]
    try:
        spec = spec_from_shapes(dict(majority.shapes), majority.heads)
    except SpecError as error:
        raise ZooError(f"{release.source.path}: the checkpoints' shapes do not fit each other: {error}") from None
    by_name = {entry.name: entry for entry in selection.entries}
    entries = [by_name[name] for name in collection.names]
    named = {entry.label for entry in entries if isinstance(entry.label, str)}
    classes = class_names(named) if named else ()
    position = {name: index for index, name in enumerate(classes)}
    labels = [position[entry.label] if isinstance(entry.label, str) else entry.label for entry in entries]
    return Zoo(
        spec=spec,
        shapes=state_dict_shapes(spec),
        rows=collection.rows,
        labels=torch.tensor(labels, dtype=torch.float32),
        names=list(collection.names),
        runs=[entry.run for entry in entries],
        report=report,
        hyperparameters=torch.tensor([entry.hyperparameters for entry in entries], dtype=torch.float32),
        epochs=[entry.epoch for entry in entries],
        classes=classes,
        runs_are_told=selection.runs_are_told,
    )
