"""Runs: which file a row of the table means, which run the file is of, and which networks a predictor has seen.

Training, scoring and comparisons decide by these functions alone. A run is one training of a network. Its checkpoints,
of whatever epochs, never stand on two sides of a split.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # flags are checked before NumPy and PyTorch are imported
    import numpy
    from torch import Tensor

_PIECE = 1 << 20
_SEPARATORS = re.compile(r"[-_=\s/]+")
_NUMBER = re.compile(r"\d+(\.\d+)?%?", re.ASCII)
_EPOCH_WORDS = ("epochs", "epoch", "ep", "e")
_MARKED_EPOCH = re.compile(r"(?<![a-z])(?:epochs?|ep|e)[-_=]*(\d+(?:\.0+)?)(?![\d.]*\d)", re.ASCII | re.IGNORECASE)
_METRICS = frozenset(("acc", "accuracy", "test", "val", "top1", "loss", "score", "step", "iter"))
_COMMON_NAMES = frozenset(
    ("checkpoint", "ckpt", "model", "net", "network", "state", "weights", "best", "last", "final")
)

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def canonical_epoch(text: str) -> str:
    """Return an epoch as one text for all ways to write it: `75.0` and `7.5e1` become `75`, `Best1` becomes `best1`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.5
    return str(int(value)) if value.is_integer() else text.strip().lower()


def file_of_each_path(paths: Iterable[str], files: Sequence[str], folder: str) -> dict[str, tuple[str, str | None]]:
    """Return path in the table -> name of the checkpoint, and its file; None where there is no such file.

    The name is the last part of the path. Where several files bear that name and the table means more than one, the
    name is the path below `folder`.

    Args:
        paths: paths as the table writes them; folders before the data set's may differ from the files'.
        files: paths of the files within the zoo, those least deep first.
        folder: folder of the data set within the zoo.
    """
    by_end: dict[tuple[str, ...], str] = {}
    for file in files:
        parts = file.split("/")
        for start in range(len(parts)):
            by_end.setdefault(tuple(parts[start:]), file)
    by_last: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for path in dict.fromkeys(paths):
        parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
        if parts:
            by_last[parts[-1]][path] = tuple(parts)
    named: dict[str, tuple[str, str | None]] = {}
    for last, spellings in by_last.items():
        is_alone = len(set(spellings.values())) == 1
        files_of_paths: dict[str, str | None] = {}
        for path, ends in spellings.items():
            # A name alone tells the file only where no other folder's file is meant by it.
            stop = len(ends) if is_alone else len(ends) - 1
            files_of_paths[path] = next((by_end[ends[start:]] for start in range(stop) if ends[start:] in by_end), None)
        is_one = is_alone or (len(set(files_of_paths.values())) == 1 and None not in files_of_paths.values())
        for path, named_file in files_of_paths.items():
            below = named_file.removeprefix(f"{folder}/") if named_file else "/".join(spellings[path])
            named[path] = last if is_one else below, named_file
    return named


def runs_of_files(files: Mapping[str, tuple[str, str, float | None]]) -> dict[str, str | None]:
    """Return name -> run of all checkpoints of a table; None where the name does not tell the run.

    A release's name is `<run>_<epoch>_<accuracy x 10000>`. In any other name the epoch is looked for, and the run is
    the rest without trailing metrics.

    Args:
        files: name -> path below the data set's folder, canonical epoch, and label or None.
    """
    stems = {name: re.sub(r"\.(pt|pth|ckpt|safetensors|safetensors\.index\.json)$", "", name) for name in files}
    epochs = {name: epoch for name, (_, epoch, _) in files.items()}
    released = {name: stem.rsplit("_", 2) for name, stem in stems.items()}
    if all(
        len(parts) == 3 and canonical_epoch(parts[1]) == epochs[name] and _NUMBER.fullmatch(parts[2])
        for name, parts in released.items()
    ):
        runs = {name: parts[0] for name, parts in released.items()}
        numbered = {name: f"{parts[0]}_{parts[2]}" for name, parts in released.items()}
        near = [
            label is not None and abs(float(released[name][2].rstrip("%")) / 1e4 - label) < 1e-3
            for name, (_, _, label) in files.items()
        ]
        return dict(_without_clash(runs, numbered, epochs) if sum(near) * 2 < len(near) else runs)
    return _runs_of_other_names(stems, epochs, {name: path for name, (path, _, _) in files.items()})


def _runs_of_other_names(
    stems: Mapping[str, str], epochs: Mapping[str, str], paths: Mapping[str, str]
) -> dict[str, str | None]:
    """Return name -> run by the place of the epoch that all names share, else by the word before it."""
    tokens = {name: _SEPARATORS.split(stem) for name, stem in stems.items()}
    places = [
        {place - len(parts) for place, part in enumerate(parts) if _epoch_of(part) == epochs[name]}
        for name, parts in tokens.items()
    ]
    shared = set.intersection(*places) if places else set()
    runs: dict[str, str | None] = {}
    with_numbers: dict[str, str] = {}
    for name, parts in tokens.items():
        if shared:
            kept = _without_places(parts, shared, drop_numbers=True)
            with_numbers[name] = "_".join(_without_places(parts, shared, drop_numbers=False))
            runs[name] = "_".join(kept)
        elif len(set(epochs.values())) == 1:
            runs[name] = stems[name]
        else:
            marks = [mark for mark in _MARKED_EPOCH.finditer(stems[name]) if canonical_epoch(mark[1]) == epochs[name]]
            runs[name] = stems[name][: marks[-1].start()].strip("-_=/ ") if marks else None
    if shared:
        runs = dict(_without_clash({name: str(run) for name, run in runs.items()}, with_numbers, epochs))
    # A name like `run_3/epoch25.pt` tells nothing but the epoch: the folder tells the run.
    return {
        name: (_with_folder(run, paths[name], epochs[name]) if run is not None and "/" not in name else run) or None
        for name, run in runs.items()
    }


def _epoch_of(token: str) -> str:
    lowered = token.lower()
    for word in _EPOCH_WORDS:
        if lowered.startswith(word) and lowered[len(word) :].isdecimal():
            return canonical_epoch(lowered[len(word) :])
    return canonical_epoch(token)


def _without_places(parts: Sequence[str], places: set[int], drop_numbers: bool) -> list[str]:
    """Return the tokens without the epoch, the word before it, and the metrics behind it."""
    first = len(parts) + min(places)
    if first and parts[first - 1].lower() in _EPOCH_WORDS:
        first -= 1
    kept = list(parts[:first])
    behind = [part for place, part in enumerate(parts) if place >= first and place - len(parts) not in places]
    behind = [part for part in behind if part.lower() not in _EPOCH_WORDS]
    is_metric = False
    for part in behind:
        if part.lower() in _METRICS:
            is_metric = True
        elif not (_NUMBER.fullmatch(part) and (is_metric or drop_numbers)):
            kept.append(part)
            is_metric = False
    return kept


def _without_clash(runs: dict[str, str], numbered: dict[str, str], epochs: Mapping[str, str]) -> dict[str, str]:
    """Return the runs, or those with trailing numbers where only these give each run one file of an epoch."""
    if not _clashes(runs, epochs) or _clashes(numbered, epochs):
        return runs
    counts = len(set(numbered.values())), len(numbered)
    several_epochs = 2 * counts[0] <= counts[1]
    return numbered if several_epochs or len(set(runs.values())) == 1 else runs


def _clashes(runs: Mapping[str, str], epochs: Mapping[str, str]) -> bool:
    pairs = [(run, epochs[name]) for name, run in runs.items()]
    return len(set(pairs)) < len(pairs)


def _with_folder(run: str, path: str, epoch: str) -> str:
    if run and run.lower() not in _COMMON_NAMES:
        return run
    folders = [folder for folder in path.split("/")[:-1] if _epoch_of(folder) != epoch]
    return "/".join([*folders, *([run] if run else [])])


def fingerprint(*parts: "numpy.ndarray") -> str:
    """Return 16 hexadecimal digits that two networks share only where their weights are equal in half precision.

    A copy of a zoo in half precision has the same networks.

    Args:
        parts: weights, float32, one after the other: rows of numbers.
    """
    import numpy  # which no command needs to parse its flags

    digest = hashlib.blake2b(digest_size=8)
    with numpy.errstate(over="ignore"):
        for part in parts:
            for start in range(0, len(part), _PIECE):
                digest.update(part[start : start + _PIECE].astype(numpy.float16).data.cast("B"))
    return digest.hexdigest()


def describe_networks(zoo, index: "Tensor") -> list[list[str]]:
    """Return run, epoch and fingerprint of each of the checkpoints `index` [n] of a `Zoo` or a `MixedZoo`."""
    prints = [""] * len(index)
    for positions, rows, _ in zoo.by_size(index):
        for position, row in zip(positions.tolist(), rows.numpy(), strict=True):
            prints[position] = fingerprint(row)
    epochs = zoo.epochs or [""] * len(zoo)
    return [[zoo.runs[i], epochs[i], prints[place]] for place, i in enumerate(index.tolist())]


@dataclass(frozen=True)
class SeenNetworks:
    """Networks that a predictor has seen: trained on, or its epoch selected by."""

    dataset: str
    """data set that the predictor was trained on"""
    by_weights: Mapping[str, str] = field(default_factory=dict)
    """fingerprint -> side"""
    by_run: Mapping[str, str] = field(default_factory=dict)
    """run -> side"""
    epochs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """run -> epochs of its networks that the predictor knows"""

    @classmethod
    def from_record(cls, record: Mapping, dataset: str, epoch: str) -> Self:
        """Return what a `split.json` tells; older ones tell file names alone.

        Args:
            record: content of the file.
            dataset, epoch: those of the run; names of older records are all of this epoch, unless it is `all`.

        Raises:
            ValueError, TypeError, AttributeError: the record is damaged.
        """
        by_weights: dict[str, str] = {}
        by_run: dict[str, str] = {}
        epochs: dict[str, set[str]] = defaultdict(set)
        for side in (TEST, VALIDATION, TRAIN):  # the last one counts
            names = record.get(side, [])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"'{side}' is not a list of file names")
            known = record.get("networks", {}).get(side) or [
                (runs_of_files({name: (name, _epoch_in(name, epoch), None)})[name] or name, _epoch_in(name, epoch), "")
                for name in names
            ]
            for run, of_epoch, weights in known:
                if not all(isinstance(text, str) for text in (run, of_epoch, weights)):
                    raise ValueError("'networks' are not runs, epochs and fingerprints")
                by_run[run] = side
                epochs[run].add(of_epoch)
                if weights:
                    by_weights[weights] = side
        return cls(dataset, by_weights, by_run, {run: frozenset(seen) for run, seen in epochs.items()})

    def side(self, weights: str, dataset: str = "", run: str = "", epoch: str = "") -> str:
        """Return the side that a network was on: train, validation, test, or "" for an unknown network.

        Equal weights are the same network. A network of the same data set and run, but of an epoch that the record
        does not hold, is of the same training. With a recorded epoch and other weights it only shares a name.
        """
        if weights in self.by_weights:
            return self.by_weights[weights]
        if dataset != self.dataset or run not in self.by_run:
            return ""
        same_name_other_weights = self.by_weights and epoch in self.epochs[run]
        return "" if same_name_other_weights else self.by_run[run]

    def sides(self, zoo, index: "Tensor") -> list[str]:
        """Return the sides [n] of the checkpoints `index` [n] of a `Zoo` or a `MixedZoo`, see `side`."""
        dataset = zoo.origin.dataset if zoo.origin else ""
        networks = describe_networks(zoo, index)
        return [self.side(weights, dataset, run, epoch) for run, epoch, weights in networks]

    def doubt(self, zoo) -> str:
        """Return a sentence where runs of another epoch of the same data set cannot be told; else nothing."""
        epochs = set().union(*self.epochs.values())
        if zoo.runs_are_told or not zoo.origin or zoo.origin.dataset != self.dataset or set(zoo.epochs) <= epochs:
            return ""
        return (
            "warning: the file names do not tell runs, so that networks of runs that were trained on may be among "
            "these; --run_column COLUMN names a column that does"
        )


def _epoch_in(name: str, epoch: str) -> str:
    parts = name.removesuffix(".pt").rsplit("_", 2)
    return canonical_epoch(parts[1]) if len(parts) == 3 else epoch
