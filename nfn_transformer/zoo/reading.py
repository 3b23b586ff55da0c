"""From a zoo's folder or zip to tensors: the sound checkpoints of one epoch, and a report on the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from nfn_transformer.errors import SpecError, ZooError
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.weights.state_dicts import (
    Shape,
    spec_from_shapes,
    state_dict_shapes,
    unflatten_rows,
    weights_from_state_dict,
)
from nfn_transformer.zoo.cache import ZooCache
from nfn_transformer.zoo.collecting import Collection, Scratch, collect, read_outcomes
from nfn_transformer.zoo.faults import Fault, FaultReport, Reason, check_acceptable, printable
from nfn_transformer.zoo.metadata import Condition, Entry, Selection, canonical_epoch, select_rows
from nfn_transformer.zoo.sources import Release, open_release

DEFAULT_HEADS = 2


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


@dataclass(frozen=True)
class Zoo:
    """Sound checkpoints of one epoch of a zoo, sorted by file name."""

    spec: TransformerSpec
    """sizes of every network"""
    shapes: dict[str, Shape]
    """state dict key -> shape"""
    rows: Tensor
    """[n, row length] float32, each network's whole state dict in the order of `shapes`"""
    labels: Tensor
    """[n] float32, test accuracies in [0, 1]"""
    names: list[str]
    """file names"""
    runs: list[str]
    """run ids"""
    report: FaultReport
    """faults of the checkpoints that were left out"""
    hyperparameters: Tensor
    """[n, len(HYPERPARAMETERS)] float32, see `metadata.encode`"""
    origin: ZooOrigin | None = None
    """place where the zoo was read; None for a zoo that was made in memory"""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def specs(self) -> tuple[TransformerSpec, ...]:
        """All sizes: one."""
        return (self.spec,)

    def weights(self, index: Tensor) -> TransformerWeights:
        """Return the weights [b, 1, ...] of the checkpoints `index` [b], as views of one copy of their rows."""
        return self.weights_of(self.rows[index])

    def weights_of(self, rows: Tensor) -> TransformerWeights:
        """Return the weights [b, 1, ...] in rows [b, row length] of this zoo, as views of them."""
        return weights_from_state_dict(unflatten_rows(rows, self.shapes), self.spec)

    def by_size(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor, "Zoo"]]:
        """Yield the checkpoints `index` [b] size by size.

        Yields:
            For each size the positions [m] in `index`, the networks' rows [m, row length], and the zoo whose
            `weights_of` reads these rows.
        """
        yield torch.arange(len(index)), self.rows[index], self

    def one_of_each_size(self, index: Tensor) -> Tensor:
        """Return the first of the checkpoints `index` [b] of each size."""
        return index[:1]


def read_zoo(
    data_path: Path,
    dataset: str,
    ckpt_epoch: str = "75",
    n_heads: int | None = None,
    allow_faulty: bool = False,
    load_cache: bool = True,
    n_workers: int = 0,
    progress: bool = True,
    where: str = "",
) -> Zoo:
    """Read the checkpoints of one epoch of a zoo.

    Args:
        data_path: the zoo's folder, or its zip.
        dataset: any name that has a table `metadata/NAME.csv`.
        ckpt_epoch: a number, `best` (best and best1), or `all`.
        n_heads: heads of checkpoints whose row does not tell (2 without it); must agree with rows that do.
        allow_faulty: use the sound checkpoints even where more than 5 % are faulty.
        load_cache: use the cache of an earlier call on the same files; the cache is written either way.
        n_workers: processes that read, at most as many as there are cores; 0 reads in this one.
        progress: show a progress bar on stderr, where that is a terminal.
        where: condition on the metadata, see `metadata.Condition`; other rows are as if the table lacked them.

    Raises:
        ZooError: the zoo, the data set, the epoch or a column does not exist, heads contradict each other, or too many
            checkpoints are faulty.
    """
    condition = Condition.parse(where)
    with open_release(Path(data_path), dataset) as release:
        selection = select_rows(release, str(ckpt_epoch), condition, n_heads)
        default = DEFAULT_HEADS if n_heads is None else n_heads
        all_tell = all(entry.heads is not None for entry in selection.entries)
        cache = ZooCache(release, canonical_epoch(str(ckpt_epoch)), 0 if all_tell else default, condition.text)
        cached = cache.load() if load_cache else None
        collection = cached or _read(release, selection.entries, default, n_workers, progress, cache.folder)
        zoo = _build_zoo(release, selection, collection, allow_faulty)
        if cached is None:
            cache.save(collection)
    place = str(Path(data_path).resolve())
    return replace(zoo, origin=ZooOrigin(place, dataset, str(ckpt_epoch), n_heads, allow_faulty, condition.text))


def _read(
    release: Release, entries: Sequence[Entry], heads: int, n_workers: int, progress: bool, scratch: Scratch
) -> Collection:
    """Read the files of the entries; `heads` is the number where an entry does not tell it."""
    present = [entry for entry in entries if entry.name in release.checkpoints]
    files = [(entry.name, release.checkpoints[entry.name]) for entry in present]
    outcomes = tqdm(
        read_outcomes(release.source, files, n_workers),
        desc=f"reading {printable(release.dataset)}",
        total=len(files),
        unit=" checkpoints",
        disable=None if progress else True,  # None: only on a terminal
    )
    collection = collect([name for name, _ in files], [entry.heads or heads for entry in present], outcomes, scratch)
    collection.faults.extend(
        Fault(entry.name, Reason.MISSING, f"no such file under '{release.folder}/'")
        for entry in entries
        if entry.name not in release.checkpoints
    )
    return collection


def _build_zoo(release: Release, selection: Selection, collection: Collection, allow_faulty: bool) -> Zoo:
    """Return the sound checkpoints with their labels.

    Raises:
        ZooError: the zoo is too faulty to be used, or the most common shapes do not fit each other.
    """
    report = FaultReport(
        examined=len(selection.entries) + len(selection.faults),
        faults=tuple(sorted([*selection.faults, *collection.faults], key=lambda fault: fault.name)),
        stray_keys=collection.stray_keys,
        duplicates=selection.duplicates,
        unlisted=tuple(sorted(release.checkpoints.keys() - selection.listed)),
    )
    check_acceptable(report, collection.signatures, release.source.path, release.dataset, allow_faulty)
    majority, _ = collection.signatures[0]
    try:
        spec = spec_from_shapes(dict(majority.shapes), majority.heads)
    except SpecError as error:
        raise ZooError(f"{release.source.path}: the checkpoints' shapes do not fit each other: {error}") from None
    by_name = {entry.name: entry for entry in selection.entries}
    entries = [by_name[name] for name in collection.names]
    return Zoo(
        spec=spec,
        shapes=state_dict_shapes(spec),
        rows=collection.rows,
        labels=torch.tensor([entry.label for entry in entries], dtype=torch.float32),
        names=list(collection.names),
        runs=[entry.run for entry in entries],
        report=report,
        hyperparameters=torch.tensor([entry.hyperparameters for entry in entries], dtype=torch.float32),
    )
