"""A run's data: the kept checkpoints of a zoo, and their split into training, validation and test by whole runs."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.seeding import make_generator
from nfn_transformer.training.augmentation import enlarge
from nfn_transformer.training.config import DataConfig, RunConfig
from nfn_transformer.training.tasks import TASKS
from nfn_transformer.trees.config import TreeConfig
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.metadata import (
    ABSENT,
    HYPERPARAMETERS,
    NUMBERS,
    ZOO_OPTIMIZERS,
    Columns,
    Condition,
)
from nfn_transformer.zoo.network_facts import FACTS
from nfn_transformer.zoo.published_split import read_published_split
from nfn_transformer.zoo.reading import Zoo, read_zoo
from nfn_transformer.zoo.runs import describe_networks
from nfn_transformer.zoo.several_sizes import MixedZoo, read_all_sizes

TRAIN_SHARE = 0.7
VALIDATION_SHARE = 0.15

_DIGEST_CHUNK = 1024


@dataclass(frozen=True)
class Split:
    """Indices of checkpoints, int64 [n_side], each side in ascending order."""

    train: Tensor
    """checkpoints to learn from"""
    validation: Tensor
    """checkpoints to select the epoch on"""
    test: Tensor
    """checkpoints to measure once"""

    def with_fewer_to_train(self, count: int, seed: int) -> Self:
        """Return the split with `count` of its training checkpoints, drawn one by one by seed; fewer are part of more.

        Raises:
            ZooError: the training side has fewer.
        """
        if count > len(self.train):
            raise ZooError(f"--train_networks {count}: expected at most the {len(self.train)} of the training side")
        drawn = torch.randperm(len(self.train), generator=make_generator(seed, "train networks"))[:count]
        return type(self)(self.train[drawn.sort().values], self.validation, self.test)

    @classmethod
    def from_names(cls, record: Mapping[str, Sequence[str]], names: Sequence[str]) -> Self:
        """Return the split that `split_record` recorded, as indices into `names`.

        Raises:
            ZooError: a side is not in the record, or a recorded checkpoint is not among `names`.
        """
        position = {name: index for index, name in enumerate(names)}
        sides = []
        for side in fields(cls):
            if side.name not in record:
                sides_of_record = printable(", ".join(record)) or "none"
                raise ZooError(f"the recorded split has no side '{side.name}'; it has {sides_of_record}")
            absent = [name for name in record[side.name] if name not in position]
            if absent:
                first = quoted(absent[0])
                raise ZooError(f"{len(absent)} checkpoints of the recorded split are not in the zoo: {first} ...")
            sides.append(torch.tensor([position[name] for name in record[side.name]], dtype=torch.int64))
        return cls(*sides)


@dataclass(frozen=True)
class RunData:
    """Data that a run is trained and tested on."""

    zoo: Zoo | MixedZoo
    """on the CPU"""
    split: Split
    """indices into the zoo, transformed copies included"""
    record: dict
    """content of split.json: the file names on each side, and digests of their data"""


def load_zoo(config: DataConfig, load_cache: bool = True, n_workers: int = 0) -> Zoo | MixedZoo:
    """Return the zoo that a configuration names, on the CPU.

    Raises:
        ZooError: see `zoo.reading.read_zoo`.
    """
    read = read_all_sizes if config.all_sizes and config.table is None else read_zoo
    return read(
        Path(config.data_path),
        config.dataset,
        ckpt_epoch=config.ckpt_epoch,
        n_heads=config.n_heads,
        allow_faulty=config.allow_faulty,
        load_cache=load_cache,
        n_workers=n_workers,
        where=config.where,
        columns=Columns(config.file_column, config.epoch_column, config.label_column, config.run_column),
        weights_key=config.weights_key,
        labels=TASKS[config.task].labels,
        facts={name: str(getattr(config, name)) for name in FACTS if getattr(config, name) is not None},
        table=config.table,
    )


def draw_split(zoo: Zoo | MixedZoo, config: DataConfig, seed: int) -> Split:
    """Return the split by the seed of the checkpoints of at least the cut-off's accuracy, trained on fewer where asked.

    Of a task whose labels are no accuracies all checkpoints are kept.

    Raises:
        ZooError: a side would be empty, or has fewer than asked for.
        UserError: --split or --test_where is at fault, whatever the cut-off.
    """
    # Rounded as the labels are: the float32 nearest 0.7 is below 0.7, and must not drop the label 0.7.
    least = torch.tensor(config.cut_off, dtype=zoo.labels.dtype)
    are_accuracies = TASKS[config.task].labels == "accuracy"
    kept = (zoo.labels >= (least if are_accuracies else -math.inf)).nonzero().flatten()
    if config.folds is not None:
        from nfn_transformer.training.folds import split_of_fold

        return split_of_fold(zoo, kept, config, seed)
    if config.split:
        split = _published_split(zoo, kept, config)
        return split if config.train_networks is None else split.with_fewer_to_train(config.train_networks, seed)
    try:
        split = (
            _split_where(zoo, kept, config, seed)
            if config.test_where and len(kept)
            else split_runs(zoo.runs, seed, kept)
        )
    except ZooError as error:
        met = f" have an accuracy of at least {config.cut_off}" if are_accuracies else ""
        raise ZooError(
            f"{config.data_path}, data set '{config.dataset}', epoch {config.ckpt_epoch}: "
            f"{len(kept)} of {len(zoo)} checkpoints{met}; {error}"
        ) from None
    return split if config.train_networks is None else split.with_fewer_to_train(config.train_networks, seed)


def _published_split(zoo: Zoo | MixedZoo, kept: Tensor, config: DataConfig) -> Split:
    """Return the split that --split names.

    Raises:
        UserError: the file is at fault.
        ZooError: the file splits the zoo, but not the kept networks.
    """
    path = Path(config.split)
    try:
        sides = read_published_split(path, config.split_checksum, [zoo.names[i] for i in kept.tolist()])
    except UserError as error:
        read_published_split(path, config.split_checksum, zoo.names)  # which raises where the cut-off is not the reason
        raise ZooError(str(error)) from None
    return Split(*(kept[side] for side in sides))


def _split_where(zoo: Zoo | MixedZoo, kept: Tensor, config: DataConfig, seed: int) -> Split:
    """Return the split whose test side are the networks that --test_where names.

    Of the other runs 85 % are for training, 15 % for validation. A run of which a network is tested is on neither side.

    Raises:
        UserError: no network of the zoo has a value, or its table lacks a column.
        ZooError: no kept network meets the condition, or a side would be empty.
    """
    flag, meets = f"--test_where {config.test_where}", torch.ones(len(zoo), dtype=torch.bool)
    is_told = dict(zip(HYPERPARAMETERS, (zoo.hyperparameters != ABSENT).any(0).tolist(), strict=True))
    for column, value in Condition.parse(config.test_where, "--test_where").wanted:
        name, text = (f"optimizer is {value.lower()}", "1") if column == "optimizer" else (column, value)
        if not is_told.get(name):
            columns = [each for each in NUMBERS if is_told[each]]
            if any(is_told[f"optimizer is {each}"] for each in ZOO_OPTIMIZERS):
                columns.append(f"optimizer={'|'.join(ZOO_OPTIMIZERS)}")
            there = f"a column of the zoo's table ({', '.join(columns)})" if columns else "a table with hyperparameters"
            raise UserError(f"{flag}: expected {there}, got {quoted(f'{column}={value}')}")
        numbers = zoo.hyperparameters[:, HYPERPARAMETERS.index(name)]
        try:
            has_value = (numbers == torch.tensor(float(text))) & (numbers != ABSENT)  # in float32, as they are
        except ValueError:
            raise UserError(f"{flag}: expected a number, got {quoted(f'{column}={value}')}") from None
        if not has_value.any():
            there = ", ".join(f"{number:g}" for number in numbers.unique()[:20].tolist() if number != ABSENT)
            told = f"; {column} is {there}" if name == column else ""
            raise UserError(f"{flag}: no network has {quoted(f'{column}={value}')}{told}")
        meets &= has_value
    test = kept[meets[kept]]
    if not len(test):
        raise ZooError(f"{flag}: no such network among them")
    tested = {zoo.runs[index] for index in test.tolist()}
    others = [index for index in kept.tolist() if zoo.runs[index] not in tested]
    split = split_runs(zoo.runs, seed, torch.tensor(others, dtype=torch.int64))
    return Split(torch.cat([split.train, split.test]).sort().values, split.validation, test)


def split_runs(runs: Sequence[str], seed: int, kept: Tensor | None = None) -> Split:
    """Split checkpoints 70/15/15 by run, so that a run is never on two sides.

    Of n distinct runs, int(0.7 n) are for training, int(0.15 n) for validation, the others for the test.
    The sides depend on the seed and on the set of distinct runs, not on the order of the checkpoints.

    Args:
        runs: run id of each checkpoint.
        seed: of the draw.
        kept: indices [m] of the checkpoints to be split, ascending; all where it is None.

    Raises:
        ZooError: a side would be empty.
    """
    kept = torch.arange(len(runs)) if kept is None else kept
    runs = [runs[index] for index in kept.tolist()]
    distinct = sorted(set(runs))
    train = int(TRAIN_SHARE * len(distinct))
    validation = int(VALIDATION_SHARE * len(distinct))
    test = len(distinct) - train - validation
    if min(train, validation, test) == 0:
        raise ZooError(
            f"too few runs to split: {len(runs)} checkpoints of {len(distinct)} runs give "
            f"{train} runs for training, {validation} for validation and {test} for the test; each must have one"
        )
    order = torch.randperm(len(distinct), generator=make_generator(seed, "split")).tolist()
    side_of = {distinct[run]: (rank >= train) + (rank >= train + validation) for rank, run in enumerate(order)}
    sides = torch.tensor([side_of[run] for run in runs])
    return Split(*(kept[sides == side] for side in range(3)))


def recorded_split(zoo: Zoo | MixedZoo, record: dict, source: Path) -> Split:
    """Return the split that a run recorded in the file `source`, checked against the zoo as it is now.

    Raises:
        RunError: a checkpoint is gone, its content is no longer what the run began with, or the record is damaged.
    """
    try:
        split = Split.from_names(record, zoo.names)
    except ZooError as error:
        raise RunError(f"the zoo is not the one that the run began with: {error}") from None
    except (TypeError, ValueError) as error:
        raise RunError(f"{source}: is not the split of a run: {error}") from None
    is_of_all = not len(split.validation) and not len(split.test)  # a training on all networks, after those of folds
    if not len(split.train) or not (is_of_all or (len(split.validation) and len(split.test))):
        raise RunError(f"{source}: is not the split of a run: a side is empty")
    if split_record(zoo, split)["digest"] != record.get("digest"):
        raise RunError("the zoo is not the one that the run began with: weights or labels have changed")
    return split


def split_record(zoo: Zoo | MixedZoo, split: Split) -> dict:
    """Return the content of split.json: names, a digest of weights and labels side after side, one of hyperparameters.

    Where labels are classes, their names count among the labels.

    Run, epoch and fingerprint of each network stand beside them, see `runs.SeenNetworks`. `zoo` is on the CPU.
    """
    sides, digest = (split.train, split.validation, split.test), 0
    for side in sides:
        for chunk in side.split(_DIGEST_CHUNK) if len(side) else ():
            for tensor in (*(rows for _, rows, _ in zoo.by_size(chunk)), zoo.labels[chunk]):
                digest = zlib.crc32(tensor.numpy().data.cast("B"), digest)
    digest = zlib.crc32("\n".join(zoo.classes).encode("utf-8", "surrogateescape"), digest)
    hyperparameters = zlib.crc32(zoo.hyperparameters[torch.cat(sides)].numpy().tobytes())
    digests = {"digest": f"{digest:08x}", "hyperparameters": f"{hyperparameters:08x}"}
    indices: dict[str, Tensor] = {side.name: getattr(split, side.name) for side in fields(split)}
    names = {side: [zoo.names[position] for position in index.tolist()] for side, index in indices.items()}
    networks = {side: describe_networks(zoo, index) for side, index in indices.items()}
    return {**names, **digests, **({"classes": list(zoo.classes)} if zoo.classes else {}), "networks": networks}


def data_digest(record: dict, config: RunConfig) -> str | None:
    """Return text that differs where a run learns from other data; None where a record of split.json has none.

    Hyperparameters count where they are the features.
    """
    digest = record.get("digest")
    reads = isinstance(config.predictor, TreeConfig) and config.predictor.features == "hyperparameters"
    return f"{digest}-{record.get('hyperparameters')}" if reads else digest


def prepare(zoo: Zoo | MixedZoo, split: Split, config: DataConfig | None = None, seed: int = 0) -> RunData:
    """Return a run's data, enlarged where `config` says so by draws from `seed`.

    Raises:
        UserError: the zoo cannot be enlarged.
    """
    record = split_record(zoo, split)
    if config is not None and config.split:
        record["published"] = {"file": config.split, "checksum": config.split_checksum}
    if config is not None and config.augment:
        if isinstance(zoo, MixedZoo):
            raise UserError("--augment True: cannot be combined with --all_sizes True; it enlarges zoos of one size")
        if not isinstance(zoo.spec, TransformerSpec):
            raise UserError(
                f"--augment True: enlarges zoos of family {TransformerSpec.family}, got family {zoo.spec.family}"
            )
        zoo, split = enlarge(zoo, split, config.augment_factor, config.augment_scale, seed)
    return RunData(zoo, split, record)
