"""An experiment: a run directory, its configuration, data and learner; begun, or taken up again."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nfn_transformer.errors import RunError
from nfn_transformer.training.config import RunConfig, absolute, installed_versions
from nfn_transformer.training.data import RunData, draw_split, load_zoo, prepare, recorded_split
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.training.learners import Learner, build_learner
from nfn_transformer.training.run_directory import RunDirectory, check_free, read_json
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.reading import Zoo


@dataclass(frozen=True)
class Experiment:
    """Everything that a run consists of; the model is on the run's device."""

    run: RunDirectory
    config: RunConfig
    data: RunData
    learner: Learner


def begin(
    configs: Sequence[RunConfig],
    out_dirs: Sequence[Path | None],
    load_cache: bool = True,
    n_workers: int = 0,
    processes: Distributed = SINGLE_PROCESS,
) -> list[Experiment]:
    """New runs on one zoo. Their directories appear when the zoo, the splits and the models are sound.

    Args:
        configs: they differ by their seeds; `device` names the device that is wanted.
        out_dirs: where the runs go; a new directory under runs/ where None.
        load_cache, n_workers: see `zoo.reading.read_zoo`.
        processes: those that share one run; the first makes its directory.

    Raises:
        UserError: anything in the configuration, the zoo or the directories is not as it must be.
    """
    for out_dir in out_dirs:
        if out_dir is not None and processes.is_main:
            check_free(out_dir)
    with processes.main_process_first():
        zoo = load_zoo(configs[0].data, load_cache, n_workers)
    prepared = [_prepare(config, zoo, processes) for config in configs]
    return [_with_directory(*parts, out_dir, processes) for parts, out_dir in zip(prepared, out_dirs, strict=True)]


def _prepare(config: RunConfig, zoo: Zoo, processes: Distributed) -> tuple[RunConfig, RunData, Learner]:
    split = draw_split(zoo, config.data, config.seed)
    learner = build_learner(replace(config, device=processes.device(config.device)), zoo)
    config = replace(config, device=learner.device, versions={**config.versions, **_shared_by(processes)})
    return config, prepare(zoo, split, config.data, config.seed), learner


def _with_directory(
    config: RunConfig, data: RunData, learner: Learner, out_dir: Path | None, processes: Distributed
) -> Experiment:
    path = None
    if processes.is_main:
        name = f"{config.data.dataset}-{config.predictor.name}-seed{config.seed}"
        path = RunDirectory.create(out_dir, name, config, data.zoo.spec, data.record, data.zoo.report.csv()).path
    return Experiment(RunDirectory(processes.broadcast(path)), config, data, learner)


def _shared_by(processes: Distributed) -> dict[str, str]:
    """Where several processes share a run, their number; it may change the last digits, as that of threads."""
    return {"processes": str(processes.count)} if processes.count > 1 else {}


@dataclass(frozen=True)
class ResumeOverrides:
    """What a run that goes on has in place of its own, which decides no numbers beyond rounding; its own where None.

    Fields: device; data_path, another place of the same zoo; compile and cuda_graphs, see `TrainingConfig`.
    """

    device: torch.device | None = None
    data_path: str | None = None
    compile: bool | None = None
    cuda_graphs: bool | None = None

    def applied(self, config: RunConfig) -> RunConfig:
        """A run's configuration with these."""
        if self.data_path is not None:
            config = replace(config, data=replace(config.data, data_path=absolute(self.data_path)))
        if self.device is not None:
            config = replace(config, device=str(self.device))
        wanted = {"compile": self.compile, "cuda_graphs": self.cuda_graphs}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        return replace(config, training=replace(config.training, **wanted)) if wanted else config


NO_OVERRIDES = ResumeOverrides()


def reopen(
    paths: Sequence[Path],
    overrides: ResumeOverrides = NO_OVERRIDES,
    load_cache: bool = True,
    n_workers: int = 0,
    processes: Distributed = SINGLE_PROCESS,
) -> list[Experiment]:
    """Runs that have begun, with their own configuration, splits, device and number of threads.

    Args:
        paths: their directories; of several runs, all of one configuration but for the seed.
        overrides: see there.
        load_cache, n_workers: see `zoo.reading.read_zoo`.
        processes: those that share one run.

    Raises:
        RunError: a directory is damaged, the zoo is not the one that a run began with, or the runs differ.
        ZooError: the zoo cannot be read.
    """
    runs = [RunDirectory.open(path) for path in paths]
    described = [_described(run, overrides) for run in runs]
    (config, spec), *others = described
    for path, (other, _) in zip(paths[1:], others, strict=True):
        if replace(other, seed=config.seed, versions=config.versions) != config:
            raise RunError(f"{path}: has another configuration than {paths[0]}; resume each by itself")
    if not Path(config.data.data_path).exists():
        raise RunError(f"{config.data.data_path}: the run's zoo is no longer there; name its new place by --data_path")
    _check_device(config.device)
    if processes.is_main:
        for run in runs:
            run.remove_leftovers()
    _restore_threads(config, processes)
    with processes.main_process_first():
        zoo = load_zoo(config.data, load_cache, n_workers)
    if zoo.spec != spec:
        raise RunError(f"{config.data.data_path}: the zoo's networks have other sizes than when the run began")
    return [_taken_up(run, config, zoo, processes) for run, (config, _) in zip(runs, described, strict=True)]


def _described(run: RunDirectory, overrides: ResumeOverrides) -> tuple[RunConfig, TransformerSpec]:
    config, spec = run.read_config()
    return overrides.applied(config), spec


def _taken_up(run: RunDirectory, config: RunConfig, zoo: Zoo, processes: Distributed) -> Experiment:
    split = recorded_split(zoo, read_json(run.split_file), run.split_file)
    learner = build_learner(replace(config, device=processes.device(config.device)), zoo)
    return Experiment(run, config, prepare(zoo, split, config.data, config.seed), learner)


def _check_device(device: str) -> None:
    if device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise RunError(f"the run began on {device}, which is not on this machine; name another by --device")


def _restore_threads(config: RunConfig, processes: Distributed) -> None:
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
    now = {"processes": "1", **installed_versions(), **_shared_by(processes)}
    for name, version in {"processes": "1", **config.versions}.items():
        if now.get(name) != version and processes.is_main:
            print(
                f"warning: the run began with {name} {version}, this is {now.get(name)}; its numbers may differ",
                file=sys.stderr,
            )
