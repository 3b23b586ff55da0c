"""An experiment: a run directory, its configuration, data and model; begun, or taken up again."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nfn_transformer.errors import RunError, UserError
from nfn_transformer.experiments.config import RunConfig, absolute, installed_versions
from nfn_transformer.experiments.data import RunData, draw_split, load_zoo, prepare, recorded_split
from nfn_transformer.experiments.run_directory import RunDirectory, check_free, read_json
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import AccuracyPredictor, build_predictor
from nfn_transformer.weights.spec import TransformerSpec


@dataclass(frozen=True)
class Experiment:
    """Everything that a run consists of; data and model are on the run's device."""

    run: RunDirectory
    config: RunConfig
    data: RunData
    model: AccuracyPredictor


def begin(config: RunConfig, out_dir: Path | None, load_cache: bool, n_workers: int) -> Experiment:
    """A new run. Its directory appears when the zoo, the split and the model are sound.

    Args:
        config: `device` names the device.
        out_dir: where the run goes; a new directory under runs/ where None.
        load_cache, n_workers: see `zoo.reading.read_zoo`.

    Raises:
        UserError: anything in the configuration, the zoo or the directory is not as it must be.
    """
    if out_dir is not None:
        check_free(out_dir)
    zoo = load_zoo(config.data, load_cache, n_workers)
    config.predictor.check(zoo.spec, config.data.dataset)
    device = torch.device(config.device)
    data = prepare(zoo, draw_split(zoo, config.data, config.seed), device)
    model = _build(zoo.spec, config.predictor, config.seed)
    modes = config.predictor
    name = f"{config.data.dataset}-{modes.enc_mode}-{modes.cls_mode}-{modes.emb_mode}-seed{config.seed}"
    run = RunDirectory.create(out_dir, name, config, zoo.spec, data.to_record(), zoo.report.csv())
    return Experiment(run, config, data, model.to(device))


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
    _restore_threads(config)
    zoo = load_zoo(config.data, load_cache, n_workers)
    if zoo.spec != spec:
        raise RunError(f"{config.data.data_path}: the zoo's networks have other sizes than when the run began")
    data = prepare(zoo, recorded_split(zoo, read_json(run.split_file), run.split_file), torch.device(config.device))
    return Experiment(run, config, data, _build(spec, config.predictor, config.seed).to(config.device))


def _restore_threads(config: RunConfig) -> None:
    """Sums on a CPU are rounded by how they are shared out, so the same bits need as many threads."""
    threads = config.versions.get("threads", "")
    if threads.isdecimal() and 0 < int(threads) <= 1024:
        torch.set_num_threads(int(threads))
    now = installed_versions()
    for name, version in config.versions.items():
        if now.get(name) != version:
            print(
                f"warning: the run began with {name} {version}, this is {now.get(name)}; its numbers may differ",
                file=sys.stderr,
            )


def _build(spec: TransformerSpec, config: ModelConfig, seed: int) -> AccuracyPredictor:
    try:
        return build_predictor(spec, config, seed)
    except (RuntimeError, MemoryError) as error:  # PyTorch's allocator raises the former
        reason = str(error).splitlines()[0]
        raise UserError(f"the model cannot be made, fewer channels or outputs may help: {reason}") from None
