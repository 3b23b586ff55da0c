"""A run's data: the kept checkpoints of a zoo, and the side of the split that each is on."""

import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.training.config import DataConfig, RunConfig
from nfn_transformer.trees.config import TreeConfig
from nfn_transformer.zoo.augmentation import enlarge
from nfn_transformer.zoo.metadata import Columns
from nfn_transformer.zoo.reading import Zoo, read_zoo
from nfn_transformer.zoo.runs import describe_networks
from nfn_transformer.zoo.several_sizes import MixedZoo, read_all_sizes
from nfn_transformer.zoo.split import Split, apply_cut_off, split_runs

_DIGEST_CHUNK = 1024


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
        columns=Columns(config.file_column, config.epoch_column, config.label_column, config.run_column),
        weights_key=config.weights_key,
    )


def draw_split(zoo: Zoo | MixedZoo, config: DataConfig, seed: int) -> Split:
    """Return the split by the seed of the checkpoints of at least the cut-off's accuracy, trained on fewer where asked.

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
    if split_record(zoo, split)["digest"] != record.get("digest"):
        raise RunError("the zoo is not the one that the run began with: weights or accuracies have changed")
    return split


def split_record(zoo: Zoo | MixedZoo, split: Split) -> dict:
    """Return the content of split.json: names, a digest of weights and labels side after side, one of hyperparameters.

    Run, epoch and fingerprint of each network stand beside them, see `runs.SeenNetworks`. `zoo` is on the CPU.
    """
    sides, digest = (split.train, split.validation, split.test), 0
    for side in sides:
        for chunk in side.split(_DIGEST_CHUNK):
            for tensor in (*(rows for _, rows, _ in zoo.by_size(chunk)), zoo.labels[chunk]):
                digest = zlib.crc32(tensor.numpy().data.cast("B"), digest)
    hyperparameters = zlib.crc32(zoo.hyperparameters[torch.cat(sides)].numpy().tobytes())
    digests = {"digest": f"{digest:08x}", "hyperparameters": f"{hyperparameters:08x}"}
    networks = {side.name: describe_networks(zoo, getattr(split, side.name)) for side in fields(split)}
    return {**split.to_names(zoo.names), **digests, "networks": networks}


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
    if config is not None and config.augment:
        if isinstance(zoo, MixedZoo):
            raise UserError("--augment True: cannot be combined with --all_sizes True; it enlarges zoos of one size")
        zoo, split = enlarge(zoo, split, config.augment_factor, config.augment_scale, seed)
    return RunData(zoo, split, record)
