"""From a zoo's folder or zip to tensors: the sound checkpoints of one epoch, and a report on the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from nfn_transformer.zoo.acceptance import check_acceptable
from nfn_transformer.zoo.cache import ZooCache
from nfn_transformer.zoo.collecting import Collection, collect
from nfn_transformer.zoo.conditions import Condition
from nfn_transformer.zoo.faults import Fault, FaultReport, Reason
from nfn_transformer.zoo.metadata import Entry, Selection, canonical_epoch, read_rows, run_id, select_epoch
from nfn_transformer.zoo.parallel import read_outcomes
from nfn_transformer.zoo.printing import printable, quoted
from nfn_transformer.zoo.release import Release, open_release
from nfn_transformer.zoo.row_matrix import Scratch

DEFAULT_HEADS = 2


@dataclass(frozen=True)
class Zoo:
    """The sound checkpoints of one epoch of a zoo, sorted by file name.

    Fields: spec, the sizes of every network; shapes, state dict key -> shape; rows [n, row length] float32,
    each network's whole state dict in the order of `shapes`; labels [n] float32, test accuracies in [0, 1];
    names, file names; runs, run ids; report, what was left out and why; hyperparameters [n, len(HYPERPARAMETERS)]
    float32, see `hyperparameters.encode`.
    """

    spec: TransformerSpec
    shapes: dict[str, Shape]
    rows: Tensor
    labels: Tensor
    names: list[str]
    runs: list[str]
    report: FaultReport
    hyperparameters: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def weights(self, index: Tensor) -> TransformerWeights:
        """The weights [b, 1, ...] of the checkpoints that `index` [b] selects, as views of one copy of their rows."""
        return self.weights_of(self.rows[index])

    @property
    def specs(self) -> tuple[TransformerSpec, ...]:
        """The sizes that there are: one."""
        return (self.spec,)

    def by_size(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor, "Zoo"]]:
        """The checkpoints that `index` [b] selects, size by size.

        Returns:
            For each size that is among them the places [m] in `index`, the networks' rows [m, row length], and the zoo
            whose `weights_of` reads these.
        """
        yield torch.arange(len(index)), self.rows[index], self

    def one_of_each_size(self, index: Tensor) -> Tensor:
        """The first of the checkpoints that `index` [b] selects of each size that is among them."""
        return index[:1]

    def weights_of(self, rows: Tensor) -> TransformerWeights:
        """The weights [b, 1, ...] in rows [b, row length] of this zoo, as views of them."""
        return weights_from_state_dict(unflatten_rows(rows, self.shapes), self.spec)


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
        load_cache: use what an earlier call read from the same files; the cache is written either way.
        n_workers: processes that read, at most as many as there are cores; 0 reads in this one.
        progress: show a progress bar on stderr, where that is a terminal.
        where: a condition on the metadata, see `conditions.Condition.parse`: other rows are as if they were not there.

    Raises:
        ZooError: the zoo, the data set, the epoch or a column is not there, heads contradict each other,
            or the zoo is too faulty to be used; the message says what was found.
    """
    data_path = Path(data_path)
    condition = Condition.parse(where)
    with open_release(data_path, dataset) as release:
        table = f"{data_path}: {printable(release.metadata_name)}"
        rows = read_rows(release.metadata, table, condition)
        chosen = select_epoch(rows, str(ckpt_epoch), table, condition)
        check_heads(chosen.entries, n_heads, table)
        default = DEFAULT_HEADS if n_heads is None else n_heads
        told = all(entry.heads is not None for entry in chosen.entries)
        cache = ZooCache(release, canonical_epoch(str(ckpt_epoch)), 0 if told else default, str(condition))
        cached = cache.load() if load_cache else None
        collection = cached or _read(release, chosen.entries, default, n_workers, progress, cache.folder)
        unlisted = sorted(release.checkpoints.keys() - {row.name for row in rows})
        report = _report(chosen, collection, unlisted)
        check_acceptable(report, collection.signatures, f"{data_path}, data set {quoted(dataset)}", allow_faulty)
        zoo = _zoo(chosen, collection, report, data_path)
        if cached is None:
            cache.save(collection)
    return zoo


def check_heads(entries: Sequence[Entry], n_heads: int | None, where: str) -> None:
    """Raise ZooError where `n_heads` is given and a row tells another number of heads."""
    against = [entry for entry in entries if n_heads is not None and entry.heads not in (None, n_heads)]
    if against:
        raise ZooError(
            f"{where}: --n_heads {n_heads} contradicts {len(against)} of {len(entries)} rows; "
            f"that of {quoted(against[0].name)} has n_attention_heads {against[0].heads}"
        )


def _read(
    release: Release, entries: Sequence[Entry], heads: int, n_workers: int, progress: bool, scratch: Scratch
) -> Collection:
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
    folder = release.metadata_name.removesuffix(f"metadata/{release.dataset}.csv") + release.dataset
    collection.faults.extend(
        Fault(entry.name, Reason.MISSING, f"no such file under '{folder}/'")
        for entry in entries
        if entry.name not in release.checkpoints
    )
    return collection


def _report(chosen: Selection, collection: Collection, unlisted: Sequence[str]) -> FaultReport:
    faults = sorted([*chosen.faults, *collection.faults], key=lambda fault: fault.name)
    return FaultReport(chosen.size, tuple(faults), collection.stray_keys, chosen.duplicates, tuple(unlisted))


def _zoo(chosen: Selection, collection: Collection, report: FaultReport, where: Path) -> Zoo:
    majority, _ = collection.signatures[0]
    try:
        spec = spec_from_shapes(dict(majority.shapes), majority.heads)
    except SpecError as error:
        raise ZooError(f"{where}: the checkpoints' shapes do not fit each other: {error}") from None
    told = {entry.name: entry for entry in chosen.entries}
    return Zoo(
        spec=spec,
        shapes=state_dict_shapes(spec),
        rows=collection.rows,
        labels=torch.tensor([told[name].label for name in collection.names], dtype=torch.float32),
        names=list(collection.names),
        runs=[run_id(name) for name in collection.names],
        report=report,
        hyperparameters=torch.tensor([told[name].hyperparameters for name in collection.names], dtype=torch.float32),
    )
