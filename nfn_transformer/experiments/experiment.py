"""An experiment: a run directory, its configuration, data and learner; begun, or taken up again."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nfn_transformer.errors import RunError
from nfn_transformer.experiments.config import RunConfig, absolute, installed_versions
from nfn_transformer.experiments.data import RunData, draw_split, load_zoo, prepare, recorded_split
from nfn_transformer.experiments.learners import Learner, build_learner
from nfn_transformer.experiments.run_directory import RunDirectory, check_free, read_json


@dataclass(frozen=True)
class Experiment:
    """Everything that a run consists of; data and model are on the run's device."""

    run: RunDirectory
    config: RunConfig
    data: RunData
    learner: Learner


def begin(config: RunConfig, out_dir: Path | None, load_cache: bool, n_workers: int) -> Experiment:
    """A new run. Its directory appears when the zoo, the split and the model are sound.

    Args:
        config: `device` names the device that is wanted.
        out_dir: where the run goes; a new directory under runs/ where None.
        load_cache, n_workers: see `zoo.reading.read_zoo`.

    Raises:
        UserError: anything in the configuration, the zoo or the directory is not as it must be.
    """
    if out_dir is not None:
        check_free(out_dir)
    zoo = load_zoo(config.data, load_cache, n_workers)
    split = draw_split(zoo, config.data, config.seed)
    learner = build_learner(config, zoo.spec)
    config = replace(config, device=learner.device)
    data = prepare(zoo, split, learner.data_device, config.data, config.seed)
    name = f"{config.data.dataset}-{config.predictor.name}-seed{config.seed}"
    run = RunDirectory.create(out_dir, name, config, zoo.spec, data.record, zoo.report.csv())
    return Experiment(run, config, data, learner)


def reopen(
    path: Path, device: torch.device | None, data_path: str | None, load_cache: bool, n_workers: int
) -> Experiment:
    """A run that has begun, with its own configuration, split, device and number of threads.

    Args:
        path: its directory.
        device, data_path: another device or another place of the same zoo; the run's own where None.
        load_cache, n_workers: see `zoo.reading.read_zoo`.

    Raises:
        RunError: the directory is damaged, or the zoo is not the one that the run began with.
        ZooError: the zoo cannot be read.
    """
    run = RunDirectory.open(path)
    run.remove_leftovers()
    config, spec = run.read_config()
    if data_path is not None:
        config = replace(config, data=replace(config.data, data_path=absolute(data_path)))
    if not Path(config.data.data_path).exists():
        raise RunError(f"{config.data.data_path}: the run's zoo is no longer there; name its new place by --data_path")
    if device is not None:
        config = replace(config, device=str(device))
    _check_device(config.device)
    _restore_threads(config)
    zoo = load_zoo(config.data, load_cache, n_workers)
    if zoo.spec != spec:
        raise RunError(f"{config.data.data_path}: the zoo's networks have other sizes than when the run began")
    split = recorded_split(zoo, read_json(run.split_file), run.split_file)
    learner = build_learner(config, spec)
    data = prepare(zoo, split, learner.data_device, config.data, config.seed)
    return Experiment(run, config, data, learner)


def _check_device(device: str) -> None:
    if device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise RunError(f"the run began on {device}, which is not on this machine; name another by --device")


def _restore_threads(config: RunConfig) -> None:
    """Sums on a CPU are rounded by how they are shared out, so the same bits need as many threads."""
    threads = config.versions.get("threads", "")
    if threads.isdecimal() and 0 < int(threads) <= 1024:
        if int(threads) > torch.get_num_threads():
            print(
                f"warning: the run began with {threads} threads and goes on with as many, where there would be "
                f"{torch.get_num_threads()}; it may be slow",
                file=sys.stderr,
            )
        torch.set_num_threads(int(threads))
    now = installed_versions()
    for name, version in config.versions.items():
        if now.get(name) != version:
            print(
                f"warning: the run began with {name} {version}, this is {now.get(name)}; its numbers may differ",
                file=sys.stderr,
            )
