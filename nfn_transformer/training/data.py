"""A run's data: the kept checkpoints of a zoo, and who is on which side of the split."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.training.config import DataConfig, RunConfig
from nfn_transformer.trees.config import TreeConfig
from nfn_transformer.zoo.augmentation import enlarge
from nfn_transformer.zoo.reading import Zoo, read_zoo
from nfn_transformer.zoo.several_sizes import MixedZoo, read_all_sizes
from nfn_transformer.zoo.split import Split, apply_cut_off, split_runs

_DIGEST_CHUNK = 1024


@dataclass(frozen=True)
class RunData:
    """What a run learns from and is tested on.

    Fields: zoo, whose tensors are on the CPU; split, indices into it, transformed copies included; record,
    what split.json holds: the file names on each side, and a digest of their data.
    """

    zoo: Zoo | MixedZoo
    split: Split
    record: dict


def load_zoo(config: DataConfig, load_cache: bool = True, n_workers: int = 0) -> Zoo | MixedZoo:
    """The zoo that a configuration names, on the CPU.

    Raises:
        ZooError: see `zoo.reading.read_zoo`.
    """
    read = read_all_sizes if config.all_sizes else read_zoo
    return read(
        Path(config.data_path),
        config.dataset,
        ckpt_epoch=config.ckpt_epoch,
        n_heads=config.n_heads,
        allow_faulty=config.allow_faulty,
        load_cache=load_cache,
        n_workers=n_workers,
        where=config.where,
    )


def draw_split(zoo: Zoo | MixedZoo, config: DataConfig, seed: int) -> Split:
    """Keep the checkpoints of at least the cut-off's accuracy, split them by the seed, and train on fewer where asked.

    Raises:
        ZooError: a side would be empty, or has fewer than asked for.
    """
    kept = apply_cut_off(zoo.labels, config.cut_off)
    try:
        split = split_runs(zoo.runs, seed, kept)
    except ZooError as error:
        raise ZooError(
            f"{config.data_path}, data set '{config.dataset}', epoch {config.ckpt_epoch}: "
            f"{len(kept)} of {len(zoo)} checkpoints have an accuracy of at least {config.cut_off}; {error}"
        ) from None
    return split if config.train_networks is None else split.with_fewer_to_train(config.train_networks, seed)


def prepare(zoo: Zoo | MixedZoo, split: Split, config: DataConfig | None = None, seed: int = 0) -> RunData:
    """Enlarge the split where `config` says so, drawing from `seed`.

    Raises:
        UserError: the zoo cannot be enlarged.
    """
    record = split_record(zoo, split)
    if config is not None and config.augment and isinstance(zoo, MixedZoo):
        raise UserError("--augment True: enlarges zoos of one size; --all_sizes True read networks of several")
    if config is not None and config.augment:
        zoo, split = enlarge(zoo, split, config.augment_factor, config.augment_scale, seed)
    return RunData(zoo, split, record)


def split_record(zoo: Zoo | MixedZoo, split: Split) -> dict:
    """What split.json holds: the file names on each side, a digest of their data, and one of their hyperparameters;
    `zoo` is on the CPU."""
    told = zlib.crc32(zoo.hyperparameters[torch.cat([split.train, split.validation, split.test])].numpy().tobytes())
    return {**split.to_names(zoo.names), "digest": _digest(zoo, split), "hyperparameters": f"{told:08x}"}


def data_digest(record: dict, config: RunConfig) -> str | None:
    """Text that is another one where what a run learns from is; None where a record of split.json has none.

    Hyperparameters count where they are what is read.
    """
    digest = record.get("digest")
    reads = isinstance(config.predictor, TreeConfig) and config.predictor.features == "hyperparameters"
    return f"{digest}-{record.get('hyperparameters')}" if reads else digest


def recorded_split(zoo: Zoo | MixedZoo, record: dict, where: Path) -> Split:
    """The split that a run recorded in the file `where`, checked against the zoo as it is now.

    Raises:
        RunError: a checkpoint is gone, its content is no longer what the run began with, or the
            record is damaged.
    """
    try:
        split = Split.from_names(record, zoo.names)
    except ZooError as error:
        raise RunError(f"the zoo is not the one that the run began with: {error}") from None
    except (TypeError, ValueError) as error:
        raise RunError(f"{where}: is not the split of a run: {error}") from None
    if _digest(zoo, split) != record.get("digest"):
        raise RunError("the zoo is not the one that the run began with: weights or accuracies have changed")
    return split


def _digest(zoo: Zoo | MixedZoo, split: Split) -> str:
    """A checksum of the weights and labels of the split's checkpoints, side after side; `zoo` is on the CPU."""
    total = 0
    for side in (split.train, split.validation, split.test):
        for part in side.split(_DIGEST_CHUNK):
            for tensor in (*(rows for _, rows, _ in zoo.by_size(part)), zoo.labels[part]):
                total = zlib.crc32(memoryview(tensor.numpy()).cast("B"), total)
    return f"{total:08x}"
