"""Training from Python: what main.py, xgb.py and gbm.py do, with keyword arguments in place of flags."""

import difflib
import shutil
import tempfile
import weakref
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch

from nfn_transformer.cli.command_line import find_device
from nfn_transformer.configuration import check_values, parse_values, setting_of
from nfn_transformer.errors import RunError, UserError, type_of
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.registry import ROLES, entries
from nfn_transformer.training.config import (
    NETWORK,
    DataConfig,
    RunConfig,
    TrainingConfig,
    installed_versions,
)
from nfn_transformer.training.fitted_predictor import FittedPredictor
from nfn_transformer.training.folds import predictor_directory
from nfn_transformer.training.loop import train
from nfn_transformer.training.report import evaluate_best, measure_ceilings
from nfn_transformer.training.run import ResumeOverrides, Run, begin_runs, resume_runs
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.trees import TreeRun
from nfn_transformer.trees.config import TREE_MODELS, BoostingConfig, TreeConfig
from nfn_transformer.zoo.metadata import Condition
from nfn_transformer.zoo.published_split import checksum_of
from nfn_transformer.zoo.reading import Zoo, ZooOrigin
from nfn_transformer.zoo.several_sizes import MixedZoo


def fit(
    zoo: Zoo | MixedZoo,
    encoder: str = "complete",
    *,
    model: str = NETWORK,
    seed: int = 3,
    device: str = "auto",
    progress: bool = True,
    out_dir: str | Path | None = None,
    stream: bool | None = None,
    n_workers: int = 0,
    **settings: Any,
) -> FittedPredictor:
    """Train a predictor of the networks' accuracy, or of other labels; test it once; return the best by validation.

    ```python
    zoo = nfn.read_zoo("data/digits_transformers.zip", "digits")
    predictor = nfn.fit(zoo, encoder="complete", epochs=20, seed=1)
    predictor = nfn.fit(zoo, encoder="inv", transformers_nfn_channels=(20,), lr=3e-4, out_dir="runs/mine")
    predictor = nfn.fit(zoo, model="gbtree", features="statistics")

    zoo = nfn.read_zoo("data/digits_transformers.zip", "digits", columns=nfn.Columns(label="optimizer"), labels="class")
    predictor = nfn.fit(zoo, task="classify")
    ```

    The same settings give the same numbers as the commands do, on one machine with one number of threads. Ctrl-C ends
    the training by KeyboardInterrupt; with `out_dir`, `resume` goes on with it.

    Args:
        zoo: the labelled networks; seed and cut-off decide its split, as on the command line.
        encoder: choice of --enc_mode; its defaults of other settings hold.
        model: `transformer_nfn`, a neural network; or a tree model: `gbtree`, `dart`, `gbdt`, `rf`, `extra_trees`,
            `blend`.
        seed: of split, parameters and batches.
        device: `auto` (CUDA where there is a GPU), `cpu`, `cuda` or `cuda:N`.
        progress: show a progress bar on stderr.
        out_dir: new run directory to keep. None writes into a temporary folder, which goes when the predictor does.
        stream, n_workers: see the flags of main.py.
        settings: flags of `main.py` by name, as `epochs`, `batch_size`, `cls_mode`, `task` and `cut_off`; of a tree
            model, `features` and settings of the data.

    Raises:
        TypeError: there is no such setting, a value has another type, or `zoo` is no zoo.
        UserError: settings cannot be combined, a value is out of range, or the zoo does not suit the predictor.
        RunError: no epoch ended with a finite loss, or `out_dir` holds something.
    """
    if not isinstance(zoo, Zoo | MixedZoo):
        raise TypeError(f"fit: expected a zoo as nfn.read_zoo(data_path, dataset) gives it, got {type_of(zoo)}")
    chosen_device = find_device(device)
    config = _run_config(zoo, encoder, model, seed, chosen_device, settings)
    folder = None if out_dir is not None else Path(tempfile.mkdtemp(prefix="nfn-transformer-"))
    try:
        path = folder / "run" if folder is not None else Path(out_dir or "")
        (run,) = begin_runs([config], [path], zoo=zoo)
        predictor = _train_and_test(run, progress, stream, n_workers)
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if folder is not None:
        weakref.finalize(predictor, shutil.rmtree, folder, ignore_errors=True)
    return predictor


def resume(
    path: str | Path,
    *,
    device: str | None = None,
    data_path: str | Path | None = None,
    table: str | Path | None = None,
    ceiling_images: str | Path | None = None,
    ceiling_skip: int | None = None,
    progress: bool = True,
    stream: bool | None = None,
    n_workers: int = 0,
) -> FittedPredictor:
    """Continue an interrupted run, of `fit` with an `out_dir` or of a command, and return its predictor.

    ```python
    predictor = nfn.resume("runs/mine")
    ```

    The run goes on by its own configuration, device and number of threads; a tree model begins anew. A finished run is
    only loaded.

    Args:
        path: the run's directory.
        device: device in place of the run's own.
        data_path: another place of the run's zoo.
        table: another place of its table, see `DataConfig.table`.
        ceiling_images: labelled images that measure the ceiling of sampling, see --ceiling_images of main.py. They are
            another place of the run's own, or new where it began without.
        ceiling_skip: number of the first test images to leave out.
        progress, stream, n_workers: see `fit`.

    Raises:
        UserError: the run is damaged or one of folds, or its zoo or its images are gone or have changed. Or the
            networks do not classify the images.
    """
    directory = RunDirectory.open(Path(path))
    chosen_device = None if device is None else str(find_device(device))
    if directory.is_finished:
        return load_predictor(path, device or "auto")
    data = directory.read_config()[0].data
    if data.folds is not None and not data.fold:
        whole = directory.path if data.fold is None else directory.path.parent
        raise RunError(f"{directory.path}: is a run of folds; resume it by the command's --resume {whole}")
    zoo, table = (None if path is None else str(path) for path in (data_path, table))
    images = None if ceiling_images is None else Path(ceiling_images)
    overrides = ResumeOverrides(chosen_device, zoo, table, images, ceiling_skip)
    (run,) = resume_runs([directory.path], overrides, n_workers=n_workers)
    return _train_and_test(run, progress, stream, n_workers)


def load_predictor(path: str | Path, device: str = "auto") -> FittedPredictor:
    """Return the predictor in a run directory, of `FittedPredictor.save`, of `fit` or of any command that trains.

    ```python
    predictor = nfn.load_predictor("runs/mine")
    predictor.predict("checkpoint.pt")
    ```

    Args:
        path: the directory; an unfinished run gives its best epoch so far.
        device: see `fit`.

    Raises:
        RunError: there is no run, it has no predictor yet, or it is damaged.
    """
    return FittedPredictor(predictor_directory(RunDirectory.open(Path(path))), find_device(device))


def _train_and_test(run: Run | TreeRun, progress: bool, stream: bool | None, n_workers: int) -> FittedPredictor:
    try:
        if isinstance(run, Run):
            train([run], stream=stream, n_workers=n_workers, progress=progress)
        else:
            run.train(progress)
        if run.history.best is None:
            raise RunError(f"stopped: {run.history.diverged}; no epoch was finished")
        predictor = FittedPredictor(run.directory, torch.device(run.config.device))
        ceilings = measure_ceilings(run.config, run.data.zoo, run.data.split.test)
        evaluate_best(run.data, run.history, predictor.trained, run.directory, run.config.seed, ceilings)
        return predictor
    finally:
        run.directory.release()  # a notebook keeps the traceback of Ctrl-C, and the run with it


def _run_config(
    zoo: Zoo | MixedZoo, encoder: str, model: str, seed: int, device: torch.device, settings: dict[str, Any]
) -> RunConfig:
    """Return the configuration that a command would have with the same settings; see `fit` for errors."""
    origin = ZooOrigin("", "") if zoo.origin is None else zoo.origin
    choice = {entry.name for entry in fields(DataConfig) if setting_of(entry).help}
    choice -= {"folds", *(entry.name for entry in fields(ZooOrigin))}  # of the commands, or of the zoo
    choice_settings = {
        name: entry for role in ROLES for each in entries(role).values() for name, entry in each.settings.items()
    }
    configs: dict[type, set[str]] = {DataConfig: choice}
    if model == NETWORK:
        training_settings = {entry.name for entry in fields(TrainingConfig) if setting_of(entry).help}
        shared = {entry.name for entry in fields(ModelConfig)} - {"enc_mode", "options", "plugins"}
        configs |= {ModelConfig: shared, TrainingConfig: training_settings}
        configs |= {each.config: set(each.settings) for role in ROLES for each in entries(role).values()}
    elif model in TREE_MODELS:
        configs |= {TreeConfig: {"features"}}
    else:
        raise UserError(f"model '{model}': expected one of {', '.join([NETWORK, *TREE_MODELS])}")
    tree_settings = TREE_MODELS[model].defaults if model in TREE_MODELS else {}
    known = {name for names in configs.values() for name in names} | tree_settings.keys()
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, "encoder", "model", "seed", "device"]) or sorted(known)
            raise TypeError(f"fit: no setting '{name}'; expected {', '.join(close)}")
    values = {kind: _parsed(kind, names, settings) for kind, names in configs.items()}
    try:
        check_values(fields(DataConfig), {"augment": False, "edit": None, **values[DataConfig]})
        read = {name: value for name, value in asdict(origin).items() if name != "labels"}  # which the task tells
        data = DataConfig(**read, **values[DataConfig])
        data = replace(data, test_where=Condition.parse(data.test_where, "--test_where").text)
        if data.split and data.test_where:
            raise UserError(f"--test_where {data.test_where}: cannot be combined with --split")
        if data.split:
            data = replace(data, split_checksum=checksum_of(Path(data.split)))
        predictor: ModelConfig | TreeConfig
        training: TrainingConfig | BoostingConfig
        if model == NETWORK:
            given = {name: value for parsed in values.values() for name, value in parsed.items()}
            given = {name: given[name] for name in settings if name in choice_settings or name in shared}
            predictor = ModelConfig.from_flags({"enc_mode": encoder, **given})
            graphs = device.type == "cuda" and all(entry.cuda_graphs for entry in predictor.chosen.values())
            training = TrainingConfig(**{"cuda_graphs": graphs, **values[TrainingConfig]})
        else:
            given = {name: settings[name] for name in settings if name in tree_settings}
            predictor = TREE_MODELS[model].config(settings=given, **values[TreeConfig])
            training = TREE_MODELS[model].boosting_by(given)
    except ValueError as error:
        raise UserError(str(error)) from None
    chosen = {"encoder" if model == NETWORK else "model": encoder if model == NETWORK else model, "seed": seed}
    command = f"nfn.fit(zoo, {', '.join(f'{name}={value!r}' for name, value in {**chosen, **settings}.items())})"
    versions = installed_versions()
    return RunConfig(seed, model, data, predictor, training, str(device), versions, command)


def _parsed(kind: type, names: set[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are fields of a configuration, with their types; whole numbers may stand for others."""
    types = get_type_hints(kind)
    given = {
        name: float(value) if types[name] is float and type(value) is int else value
        for name, value in settings.items()
        if name in names
    }
    return parse_values(kind, given, names, required=False)
