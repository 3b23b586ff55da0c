"""A zoo whose networks have several sizes: read size by size, as its metadata tell them apart, and used as one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.bundled import find_bundled
from nfn_transformer.families.registry import AnySpec
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.zoo.faults import FaultReport
from nfn_transformer.zoo.metadata import EMPTY_CELLS, SIZE_COLUMNS, Columns, Condition, class_names, select_rows
from nfn_transformer.zoo.reading import Zoo, ZooOrigin, labels_among, read_zoo
from nfn_transformer.zoo.runs import canonical_epoch
from nfn_transformer.zoo.sources import NoReleaseError, open_release


@dataclass(frozen=True)
class MixedZoo:
    """Zoos of one size each, one after another, as one; attributes are those of a `Zoo`."""

    parts: tuple[Zoo, ...]
    """the zoos, at least one"""
    origin: ZooOrigin | None = None
    """see `Zoo`"""

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __repr__(self) -> str:
        return f"MixedZoo({len(self)} networks of {len(self.parts)} sizes)"

    @property
    def spec(self) -> AnySpec:
        """Sizes of the first part's networks."""
        return self.parts[0].spec

    @property
    def specs(self) -> tuple[AnySpec, ...]:
        """All sizes."""
        return tuple(part.spec for part in self.parts)

    @cached_property
    def labels(self) -> Tensor:
        """Labels [n], see `Zoo`."""
        return torch.cat([part.labels for part in self.parts])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels' classes, see `Zoo`."""
        return self.parts[0].classes

    @cached_property
    def hyperparameters(self) -> Tensor:
        """Hyperparameters [n, len(HYPERPARAMETERS)]."""
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
    def epochs(self) -> list[str]:
        """Epochs."""
        return [epoch for part in self.parts for epoch in part.epochs]

    @property
    def runs_are_told(self) -> bool:
        """See `Zoo`."""
        return self.parts[0].runs_are_told

    @cached_property
    def report(self) -> FaultReport:
        """Faults of all parts."""
        reports = [part.report for part in self.parts]
        return FaultReport(
            examined=sum(report.examined for report in reports),
            faults=tuple(fault for report in reports for fault in report.faults),
            stray_keys={name: keys for report in reports for name, keys in report.stray_keys.items()},
            duplicates=tuple(name for report in reports for name in report.duplicates),
            unlisted=reports[0].unlisted,  # the table is the same
            entries={name: keys for report in reports for name, keys in report.entries.items()},
            forms={name: form for report in reports for name, form in report.forms.items()},
            notes=reports[0].notes,
        )

    def by_size(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor, Zoo]]:
        """Yield the checkpoints `index` [b] size by size, see `Zoo.by_size`."""
        for positions, start, part in self._positions(index):
            yield positions, part.rows[index[positions] - start], part

    def one_of_each_size(self, index: Tensor) -> list[Weights]:
        """Return the weights [1, 1, ...] of the first of the checkpoints `index` [b] of each size."""
        return [part.weights(index[positions[:1]] - start) for positions, start, part in self._positions(index)]

    def _positions(self, index: Tensor) -> Iterator[tuple[Tensor, int, Zoo]]:
        """Yield for each part among the selected its positions in `index`, and the first index of the part."""
        counts = torch.tensor([len(part) for part in self.parts])
        ends = counts.cumsum(0)
        places = torch.searchsorted(ends, index, right=True)
        for place in places.unique().tolist():  # of thousands of parts few are among the selected
            yield (places == place).nonzero().squeeze(1), int(ends[place] - counts[place]), self.parts[place]


def read_all_sizes(
    data_path: Path,
    dataset: str,
    ckpt_epoch: str = "75",
    where: str = "",
    columns: Columns | None = None,
    labels: str = "accuracy",
    **settings,
) -> Zoo | MixedZoo:
    """Read the checkpoints of one epoch of a zoo with networks of several sizes.

    Args:
        data_path, dataset, ckpt_epoch, where, columns, labels, settings: see `reading.read_zoo`, which reads each size.

    Raises:
        ZooError: see `reading.read_zoo`; the networks of each size must be as those of a whole zoo.
    """
    condition = Condition.parse(where)
    data_path = find_bundled(Path(data_path))
    settings |= {"columns": columns, "labels": labels}
    try:
        with open_release(data_path, dataset) as release:
            rows = select_rows(release, str(ckpt_epoch), condition, columns=columns, labels=labels).rows
    except NoReleaseError:  # a public zoo gives all of its sizes, or the error
        zoo = read_zoo(data_path, dataset, ckpt_epoch, where=where, **settings)
        return replace(zoo, origin=zoo.origin and replace(zoo.origin, all_sizes=True))
    tell = [name for name in SIZE_COLUMNS if name in rows[0].cells and name not in dict(condition.wanted)]
    # A column that some rows leave empty tells nothing apart: a condition on the others would meet those rows as well.
    tell = [name for name in tell if not any(row.cells[name].lower() in EMPTY_CELLS for row in rows)]
    sizes = {tuple(canonical_epoch(row.cells[name]) for name in tell) for row in rows}
    parts: list[Zoo] = []
    for size in sorted(sizes, key=lambda size: [(len(number), number) for number in size]):
        pairs = [f"{name}={number}" for name, number in zip(tell, size, strict=True)]
        each = ",".join(([condition.text] if condition.text else []) + pairs)
        zoo = read_zoo(data_path, dataset, ckpt_epoch, where=each, **settings)
        parts += zoo.parts if isinstance(zoo, MixedZoo) else (zoo,)
    classes = class_names(name for part in parts for name in part.classes)
    parts = [replace(part, labels=labels_among(part, classes), classes=classes) for part in parts]
    origin = parts[0].origin and replace(parts[0].origin, where=condition.text, all_sizes=True)
    return replace(parts[0], origin=origin) if len(parts) == 1 else MixedZoo(tuple(parts), origin)
