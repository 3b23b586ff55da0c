"""A zoo whose networks have several sizes: read size by size, as its metadata tell them apart, and used as one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.conditions import Condition
from nfn_transformer.zoo.faults import FaultReport
from nfn_transformer.zoo.metadata import canonical_epoch, is_of_epoch, read_header, read_rows
from nfn_transformer.zoo.printing import printable
from nfn_transformer.zoo.reading import Zoo, read_zoo
from nfn_transformer.zoo.release import open_release

SIZE_COLUMNS = ("embed_dim", "n_attention_heads", "n_layers", "hidden")
"""Columns of the metadata that tell networks' sizes."""


@dataclass(frozen=True)
class MixedZoo:
    """Zoos of one size each, one after another, as one; what a `Zoo` has means the same here.

    Fields: parts, at least one. `spec` is that of the first part.
    """

    parts: tuple[Zoo, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def spec(self) -> TransformerSpec:
        """Sizes of the first part's networks."""
        return self.parts[0].spec

    @property
    def specs(self) -> tuple[TransformerSpec, ...]:
        """All sizes."""
        return tuple(part.spec for part in self.parts)

    @cached_property
    def labels(self) -> Tensor:
        """Test accuracies [n]."""
        return torch.cat([part.labels for part in self.parts])

    @cached_property
    def hyperparameters(self) -> Tensor:
        """See `Zoo`."""
        return torch.cat([part.hyperparameters for part in self.parts])

    @cached_property
    def names(self) -> list[str]:
        """File names."""
        return [name for part in self.parts for name in part.names]

    @cached_property
    def runs(self) -> list[str]:
        """Run ids."""
        return [run for part in self.parts for run in part.runs]

    @cached_property
    def report(self) -> FaultReport:
        """What was left out of all parts, and why."""
        reports = [part.report for part in self.parts]
        return FaultReport(
            examined=sum(report.examined for report in reports),
            faults=tuple(fault for report in reports for fault in report.faults),
            stray_keys={name: keys for report in reports for name, keys in report.stray_keys.items()},
            duplicates=tuple(name for report in reports for name in report.duplicates),
            unlisted=reports[0].unlisted,  # the table is the same
        )

    def by_size(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor, Zoo]]:
        """See `Zoo.by_size`."""
        for places, start, part in self._places(index):
            yield places, part.rows[index[places] - start], part

    def one_of_each_size(self, index: Tensor) -> Tensor:
        """See `Zoo.one_of_each_size`."""
        return torch.stack([index[places[0]] for places, _, _ in self._places(index)])

    def _places(self, index: Tensor) -> Iterator[tuple[Tensor, int, Zoo]]:
        """Of each part that is among the selected its places in `index`, and where the part begins."""
        start = 0
        for part in self.parts:
            places = ((index >= start) & (index < start + len(part))).nonzero().squeeze(1)
            if len(places):
                yield places, start, part
            start += len(part)


def read_all_sizes(
    data_path: Path, dataset: str, ckpt_epoch: str = "75", where: str = "", **settings
) -> Zoo | MixedZoo:
    """Read the checkpoints of one epoch of a zoo with networks of several sizes.

    Args:
        data_path, dataset, ckpt_epoch, where, settings: see `reading.read_zoo`, which reads each size.

    Raises:
        ZooError: see `reading.read_zoo`; what must hold of a zoo must hold of the networks of each size.
    """
    conditions = [str(condition) for condition in _sizes_there(Path(data_path), dataset, ckpt_epoch, where)]
    parts = [read_zoo(data_path, dataset, ckpt_epoch, where=each, **settings) for each in conditions]
    return parts[0] if len(parts) == 1 else MixedZoo(tuple(parts))


def _sizes_there(data_path: Path, dataset: str, ckpt_epoch: str, where: str) -> Sequence[Condition]:
    """A condition for each size; `where` alone if no row meets it, so that reading says so."""
    asked = Condition.parse(where)
    with open_release(data_path, dataset) as release:
        table = f"{data_path}: {printable(release.metadata_name)}"
        header = read_header(release.metadata, table)
        columns = [name for name in SIZE_COLUMNS if name in header and name not in dict(asked.wanted)]
        both = Condition((*asked.wanted, *((column, "") for column in columns)))
        rows = read_rows(release.metadata, table, both)
    known = len(asked.wanted)
    cells = [
        tuple(map(canonical_epoch, row.cells[known:]))
        for row in rows
        if asked.holds(row.cells[:known]) and is_of_epoch(row, ckpt_epoch)
    ]
    # A column that some rows leave empty tells nothing apart: a condition on the others would meet those rows as well.
    kept = [place for place in range(len(columns)) if all(row[place] for row in cells)]
    sizes = sorted({tuple((columns[place], row[place]) for place in kept) for row in cells}, key=_by_number)
    return [Condition(tuple(sorted((*asked.wanted, *pairs)))) for pairs in sizes] or [asked]


def _by_number(pairs: Sequence[tuple[str, str]]) -> list[tuple[int, str]]:
    return [(len(size), size) for _, size in pairs]
