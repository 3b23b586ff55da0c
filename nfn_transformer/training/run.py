"""A run: everything that one training of a network consists of; begun, or taken up again."""

import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pkgutil import resolve_name

import torch
from torch import Tensor

from nfn_transformer.errors import RunError, UserError
from nfn_transformer.layers.scaling import Reiterable
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.consensus import FEWEST_NETWORKS
from nfn_transformer.models.predictor import Predictor, build_predictor
from nfn_transformer.models.registry import ENCODER, entries
from nfn_transformer.printable import printable, quoted
from nfn_transformer.resources import peak_mib
from nfn_transformer.seeding import derive_seed, make_generator
from nfn_transformer.training.batches import StoredFeatures, StreamedFeatures
from nfn_transformer.training.config import (
    NETWORK,
    RunConfig,
    TrainingConfig,
    absolute,
    checkout_commit,
    installed_versions,
)
from nfn_transformer.training.data import RunData, draw_split, load_zoo, prepare, recorded_split
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.training.history import EpochRecord, History, later_is_better
from nfn_transformer.training.metrics import is_lower
from nfn_transformer.training.number_tasks import AccuracyTask
from nfn_transformer.training.run_directory import RunDirectory, check_free, read_json
from nfn_transformer.training.step import build_optimizer, learning_rate
from nfn_transformer.training.task import Measures, Task
from nfn_transformer.training.tasks import TASKS
from nfn_transformer.training.tracking import Tracker
from nfn_transformer.training.trained_predictor import EVALUATION_BATCH, outputs_of_features, save_predictor
from nfn_transformer.training.trees import TreeRun
from nfn_transformer.trees.config import TREE_MODELS, TreeConfig
from nfn_transformer.trees.features import TREE_FEATURES, check_readable, supports
from nfn_transformer.weights.spec import TransformerSpec, are_alike
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

SMALL_STEP = 1_000_000
"""Weights that a step reads, below which one thread is enough for branches that say so."""

STEP_THREADS = "step threads"
"""Name among a configuration's versions of the threads of its steps, where these are one of several.

Several threads take as long for small steps, and far longer beside other work, as they wait for each other.
Their number is recorded, as it decides the rounding of sums: a resumed run keeps it."""


@dataclass(eq=False)
class Run:
    """The training of one network, which `loop.train` drives; its directory holds all that going on needs."""

    config: RunConfig[ModelConfig, TrainingConfig]
    data: RunData
    """whose test side is never read here"""
    model: Predictor
    """on the device that trains"""
    optimizer: torch.optim.Optimizer
    task: Task = field(default_factory=AccuracyTask)
    """what the model learns"""
    directory: RunDirectory = field(init=False)
    """made once all runs of a command are sound"""
    history: History = field(default_factory=History)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """the best epoch's state dict"""
    trackers: list[Tracker] = field(default_factory=list)
    """are given each finished epoch"""
    writes: bool = True
    """whether this process writes the directory and tells the trackers; of several, one does"""
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """the training side in the current epoch's order, int64 [n]"""

    def describe(self) -> str:
        """Return the model's branches and the number of its parameters, for the screen."""
        config, parameters = self.model.config, sum(p.numel() for p in self.model.parameters())
        several = f"{config.ensemble} times " if config.ensemble > 1 else ""
        return (
            f"encoder {config.enc_mode}, classifier {config.cls_mode}, embedding {config.emb_mode}; "
            f"{several}{parameters // config.ensemble:,} parameters"
        )

    def fit_normalization(self, features: StoredFeatures | StreamedFeatures) -> None:
        """Take the scales of inputs from the training side before the first epoch; later they are among the weights."""
        if self.model.needs_normalization and not self.history.records:
            train = self.data.split.train
            self.model.fit_normalization(
                Reiterable(lambda: (inputs for inputs, _ in features.batches(train, EVALUATION_BATCH)))
            )

    @property
    def is_over(self) -> bool:
        """Return whether there is nothing left to train."""
        config, finished = self.config.training, len(self.history.records)
        if self.history.diverged is not None or finished >= (config.stop_epoch or config.epochs):
            return True
        if config.early_stopping is None:
            return False
        best = self.history.best
        return best is not None and finished - best.number >= config.early_stopping

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate, the key of dropout and the order of the training side, by seed and epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(epoch, self.config.training)
        self.model.begin_epoch(derive_seed(self.config.seed, "dropout", epoch))
        self.model.train()
        train, generator = self.data.split.train, make_generator(self.config.seed, "batches", epoch)
        self.order = train[torch.randperm(len(train), generator=generator)]

    def validate(self, features: StoredFeatures | StreamedFeatures) -> Measures:
        """Return the task's measures on the validation side; on the training side where there is none."""
        index = self.data.split.validation
        index = index if len(index) else self.data.split.train
        batches = (inputs for inputs, _ in features.batches(index, EVALUATION_BATCH))
        return self.task.measure(outputs_of_features(self.model, batches), self.data.zoo.labels[index])

    def finish_epoch(self, train_loss: float, validation: Measures, seconds: float) -> None:
        """Write the epoch down; one whose loss is not finite ends the training and is not kept."""
        epoch = len(self.history.records) + 1
        if not (math.isfinite(train_loss) and math.isfinite(validation.loss)):
            self.history.diverged = (
                f"epoch {epoch}: the loss is not finite (training {train_loss}, validation {validation.loss}); "
                "a lower --lr may help"
            )
            return
        lr, peak = learning_rate(epoch, self.config.training), peak_mib(self.model.device)
        record = EpochRecord(epoch, train_loss, validation, lr, seconds, peak)
        self.history.records.append(record)
        if self.history.best is record:
            self.best_weights = self._copy_of_weights()
        if not self.writes:
            return
        # The state goes first: everything else can be written from it again.
        rows = [entry.row() for entry in self.history.records]
        state = {"model": self._copy_of_weights(), "best": self.best_weights}
        self.directory.write_state({**state, "optimizer": self.optimizer.state_dict(), "history": rows})
        if self.history.best is record:
            save_predictor(self.directory.best_file, self.model, epoch, self.task)
        self.directory.write_metrics(rows)
        for tracker in self.trackers:
            tracker.log(record)

    def load_state(self) -> None:
        """Take up the state after the last finished epoch, if there is one.

        Raises:
            RunError: the state is damaged.
        """
        state = self.directory.read_state()
        if state is None:
            if self.writes and self.directory.metrics_file.is_file():
                print(f"warning: {self.directory.state_file} is gone; the run begins anew", file=sys.stderr)
            return
        try:
            self.model.load_state_dict(state["best"])
            self.best_weights = self._copy_of_weights()
            records = [EpochRecord.from_row(row, self.task.measures) for row in state["history"]]
            self.history = History([*records], better=self.history.better)
            best = self.history.best
            if best is None:
                raise ValueError("no finished epoch")
            if self.writes:
                # A kill may have come between the files of an epoch: those beside the state follow it again.
                save_predictor(self.directory.best_file, self.model, best.number, self.task)
                self.directory.write_metrics([entry.row() for entry in self.history.records])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RunError(f"{self.directory.state_file}: is not the state of this run: {error}") from None

    def _copy_of_weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}


def begin_runs(
    configs: Sequence[RunConfig],
    out_dirs: Sequence[Path | None],
    load_cache: bool = True,
    n_workers: int = 0,
    distributed: Distributed = SINGLE_PROCESS,
    zoo: Zoo | MixedZoo | None = None,
) -> list[Run | TreeRun]:
    """Return new runs on one zoo. Their directories appear when the zoo, the splits and the models are sound.

    Args:
        configs: they differ by their seeds; `device` names the device that is wanted.
        out_dirs: the runs' directories; a new one under runs/ for None.
        load_cache, n_workers: see `zoo.reading.read_zoo`.
        distributed: the processes that share one run; the main one makes its directory.
        zoo: the configurations' zoo, if it is read already.

    Raises:
        UserError: anything in the configuration, the zoo or the directories is not as it must be.
    """
    for out_dir in out_dirs:
        if out_dir is not None and distributed.is_main:
            check_free(out_dir)
    if zoo is None:
        with distributed.main_process_first():
            zoo = load_zoo(configs[0].data, load_cache, n_workers)
    is_small = False
    given = "OMP_NUM_THREADS" in os.environ
    if isinstance(zoo, Zoo) and isinstance(zoo.spec, TransformerSpec) and configs[0].model == NETWORK and not given:
        is_small = zoo.rows.shape[1] * configs[0].training.batch_size * len(configs) < SMALL_STEP
    runs: list[Run | TreeRun] = []
    for config in configs:
        if isinstance(config.predictor, ModelConfig) and not isinstance(zoo.spec, TransformerSpec):
            config = replace(config, predictor=config.predictor.without_parts())
        split = draw_split(zoo, config.data, config.seed)
        check_predictor(config, zoo)
        if is_small and all(e.one_thread for e in config.predictor.chosen.values()):
            config = replace(config, versions={**config.versions, STEP_THREADS: "1"})
        if distributed.count > 1:  # which may change the last digits, as the number of threads does
            config = replace(config, versions={**config.versions, "processes": str(distributed.count)})
        runs.append(_build_run(config, prepare(zoo, split, config.data, config.seed), distributed))
    commit = checkout_commit() if distributed.is_main else ""
    for run, out_dir in zip(runs, out_dirs, strict=True):
        directory = RunDirectory(Path())
        if distributed.is_main:
            config = replace(run.config, commit=commit)
            directory = RunDirectory.create(out_dir, config, zoo.spec, run.data.record, run.data.zoo.report.csv())
            directory.lock()
        path = distributed.broadcast(directory.path)
        run.directory = directory if distributed.is_main else RunDirectory(path)
    return runs


@dataclass(frozen=True)
class ResumeOverrides:
    """Settings in place of a resumed run's own, which change its numbers by rounding alone; None: the run's own."""

    device: str | None = None
    data_path: str | None = None
    """another place of the same zoo"""
    table: str | None = None
    """another place of the same `DataConfig.table`"""
    ceiling_images: Path | None = None
    """another place of the same `RunConfig.ceiling_images`, or images for a run that began without"""
    ceiling_skip: int | None = None
    """see `RunConfig`"""
    compile: bool | None = None
    """see `TrainingConfig`"""
    cuda_graphs: bool | None = None
    """see `TrainingConfig`; None drops them where they cannot be used"""

    def apply(self, config: RunConfig, distributed: Distributed = SINGLE_PROCESS) -> RunConfig:
        """Return a run's configuration with these.

        Raises:
            RunError: the run has no table that could have another place, or a file or folder is not there.
        """
        if self.table is not None and config.data.table is None:
            raise RunError(f"--table {self.table}: requires a run that began with --table")
        if self.table is not None:
            config = replace(config, data=replace(config.data, table=absolute(self.table)))
        if self.data_path is not None:
            config = replace(config, data=replace(config.data, data_path=absolute(self.data_path)))
        images = config.ceiling_images if self.ceiling_images is None else str(self.ceiling_images.resolve())
        skip = config.ceiling_skip if self.ceiling_skip is None else self.ceiling_skip
        if skip and not images:
            raise RunError(f"--ceiling_skip {skip}: requires --ceiling_images")
        config = replace(config, ceiling_images=images, ceiling_skip=skip)
        for flag, given, place, named in (
            ("data_path", self.data_path, config.data.data_path, "zoo"),
            ("table", self.table, config.data.table, "table"),
            ("ceiling_images", self.ceiling_images, config.ceiling_images, "folder of images"),
        ):
            if place and not Path(place).exists():
                if given is not None:
                    raise RunError(f"--{flag} {given}: no such file or folder")
                raise RunError(f"{place}: the run's {named} is no longer there; name its new place by --{flag}")
        if self.device is not None:
            config = replace(config, device=self.device)
        graphs = self.cuda_graphs
        if graphs is None and (torch.device(config.device).type != "cuda" or distributed.count > 1):
            graphs = False
        training = {"compile": self.compile, "cuda_graphs": graphs if config.model == NETWORK else None}
        training = {name: value for name, value in training.items() if value is not None}
        return replace(config, training=replace(config.training, **training))


def resume_runs(
    paths: Sequence[Path],
    overrides: ResumeOverrides | None = None,
    load_cache: bool = True,
    n_workers: int = 0,
    distributed: Distributed = SINGLE_PROCESS,
    zoo: Zoo | MixedZoo | None = None,
) -> list[Run | TreeRun]:
    """Return runs that have begun, with their own configuration, splits, state, device and number of threads.

    Args:
        paths: their directories; several runs have one configuration but for the seed.
        overrides: see there.
        load_cache, n_workers: see `zoo.reading.read_zoo`.
        distributed: the processes that share one run.
        zoo: the runs' zoo, if it is read already.

    Raises:
        RunError: a directory is damaged, the zoo is not the one that a run began with, or the runs differ.
        UserError: the configuration wants what this machine cannot do.
        ZooError: the zoo cannot be read.
    """
    directories, overrides = [RunDirectory.open(path) for path in paths], overrides or ResumeOverrides()
    recorded = [directory.read_config() for directory in directories]
    configs = [overrides.apply(config, distributed) for config, _ in recorded]
    config, spec = configs[0], recorded[0][1]
    for path, other in zip(paths[1:], configs[1:], strict=True):
        data = replace(other.data, fold=config.data.fold)
        if replace(other, seed=config.seed, versions=config.versions, data=data) != config:
            raise RunError(f"{path}: has another configuration than {paths[0]}; resume each by itself")
    if config.device != "cpu" and (torch.device(config.device).index or 0) >= torch.cuda.device_count():
        raise RunError(f"the run began on {config.device}, which is not on this machine; name another by --device")
    if distributed.is_main:
        for directory in directories:
            directory.lock()
            if directory.is_finished:
                raise RunError(f"{directory.path}: another process has finished this run meanwhile")
            directory.remove_leftovers()
    restore_threads(config, distributed)
    if zoo is None:
        with distributed.main_process_first():
            zoo = load_zoo(config.data, load_cache, n_workers)
    if zoo.spec != spec:
        raise RunError(f"{config.data.data_path}: the zoo's networks have other sizes than when the run began")
    runs: list[Run | TreeRun] = []
    for directory, config in zip(directories, configs, strict=True):
        split = recorded_split(zoo, read_json(directory.split_file), directory.split_file)
        check_predictor(config, zoo)
        run = _build_run(config, prepare(zoo, split, config.data, config.seed), distributed)
        run.directory = directory
        if isinstance(run, Run):  # a tree model is trained anew, as no library goes on to the same bits
            run.load_state()
        runs.append(run)
    return runs


def restore_threads(config: RunConfig, distributed: Distributed) -> None:
    """Take as many threads as the run began with: how sums on a CPU are shared out decides their rounding."""
    threads = config.versions.get("threads", "")
    if threads.isdecimal() and 0 < int(threads) <= 1024:
        if int(threads) > torch.get_num_threads():
            print(
                f"warning: the run began with {threads} threads and goes on with as many, where there would be "
                f"{torch.get_num_threads()}; it may be slow",
                file=sys.stderr,
            )
        torch.set_num_threads(int(threads))
    now = {**installed_versions(), "processes": str(distributed.count)}
    now |= {STEP_THREADS: config.versions.get(STEP_THREADS, "")}  # which a resumed run keeps
    for name, version in {"processes": "1", **config.versions}.items():
        if now.get(name) != version and distributed.is_main:
            began = printable(f"{name} {version}")
            print(
                f"warning: the run began with {began}, this is {now.get(name)}; its numbers may differ",
                file=sys.stderr,
            )


def _build_run(config: RunConfig, data: RunData, distributed: Distributed) -> Run | TreeRun:
    """Return a run before its first epoch, without its directory.

    Raises:
        UserError: the configuration wants what this machine cannot do.
    """
    if config.model != NETWORK:
        if TREE_FEATURES[config.predictor.features].has_consensus:
            _check_votes("--features consensus", config, data)
        return TreeRun.on_available_device(config, data)
    entry = TASKS[config.data.task]
    facts = {} if entry.fit is None else resolve_name(entry.fit)(data.zoo, data.split, config.data)
    task: Task = resolve_name(entry.build)(**facts)
    if task.label_dims and isinstance(data.zoo, Zoo):
        data = replace(data, zoo=replace(data.zoo, labels=task.labels_of(data.zoo)))
    training, kind = config.training, torch.device(config.device).type
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # as PyTorch looks for it
    if training.compile and kind == "cpu" and shutil.which(compiler) is None:
        raise UserError(f"--compile True: requires a C++ compiler on the CPU; {compiler} is not here (CXX names one)")
    if training.cuda_graphs and kind != "cuda":
        raise UserError(f"--cuda_graphs True: the device is {config.device}; CUDA graphs need a GPU")
    if training.cuda_graphs and distributed.count > 1:
        raise UserError("--cuda_graphs True: torchrun started several processes; CUDA graphs need one alone")
    try:
        model = build_predictor(data.zoo.spec, config.predictor, config.seed, task.outputs, task.predictor).to(
            config.device
        )
    except (RuntimeError, MemoryError) as error:  # PyTorch's allocator raises the former
        reason = str(error).splitlines()[0]
        raise UserError(f"the model cannot be made, fewer channels or outputs may help: {reason}") from None
    model.to_predictions = task.predictions
    if isinstance(data.zoo, MixedZoo) and not all(map(model.supports, data.zoo.specs)):
        first, other = data.zoo.parts[0], next(part for part in data.zoo.parts if not model.supports(part.spec))
        raise UserError(
            f"--enc_mode {config.predictor.enc_mode}: reads no {other.spec.description} ({quoted(other.names[0])}) "
            f"beside {first.spec.description} ({quoted(first.names[0])})"
        )
    if model.needs_consensus:
        _check_votes("--consensus True", config, data)
    optimizer = build_optimizer(training, model.parameters())
    # The tau of a fold's few validation networks is chance in early epochs, whose predictions are nearly constant.
    better = is_lower if config.data.fold else task.is_better
    history = History(better=better if len(data.split.validation) else later_is_better)
    return Run(config, data, model, optimizer, task, history, writes=distributed.is_main)


def _check_votes(flag: str, config: RunConfig, data: RunData) -> None:
    """Raise UserError where a training side has no accuracies, few networks, or several copies of one."""
    networks, is_augmented = len(data.split.train), config.data.augment
    if config.data.task != "accuracy" or is_augmented or networks < FEWEST_NETWORKS:
        copies = ", with transformed copies (--augment)" if is_augmented else ""
        raise UserError(
            f"{flag}: requires --task accuracy, at least {FEWEST_NETWORKS} networks to train, and no transformed "
            f"copies; got --task {config.data.task}, {networks} networks to train{copies}"
        )


def check_predictor(config: RunConfig, zoo: Zoo | MixedZoo) -> None:
    """Raise UserError where the predictor of a configuration cannot read a zoo's networks, or learn its task."""
    predictor, dataset, task = config.predictor, config.data.dataset, TASKS[config.data.task]
    if config.data.cut_off and task.labels != "accuracy":
        raise UserError(f"--cut_off {config.data.cut_off}: requires --task accuracy, got {task.name}")
    if zoo.origin is not None and zoo.origin.labels != task.labels:
        read = f"got labels='{zoo.origin.labels}'"
        raise UserError(f"--task {task.name}: expected a zoo that is read with labels='{task.labels}', {read}")
    for other in TASKS.values():
        for name in other.settings:
            if name not in task.settings and (value := getattr(config.data, name)) is not None:
                raise UserError(f"--{name} {value}: requires --task {other.name}, got {task.name}")
    if task.check is not None:
        resolve_name(task.check)(config, zoo)
    if config.ceiling_images:
        from nfn_transformer.training.ceilings import check_ceiling

        check_ceiling(config, zoo)
    if isinstance(predictor, TreeConfig) and predictor.library not in task.trees:
        models = [name for name, entry in TREE_MODELS.items() if entry.library in task.trees]
        expected = f"expected one of {', '.join(models)}" if models else "nor by another tree model"
        raise UserError(f"--task {task.name}: not learned by --model {config.model}, {expected}")
    for spec in zoo.specs:
        if isinstance(predictor, ModelConfig):
            predictor.check(spec, dataset)
            readable = spec == zoo.spec or predictor.reads_several_sizes or are_alike(spec, zoo.spec)
        else:
            check_readable(predictor.features, zoo, dataset)
            readable = supports(predictor.features, zoo.spec, spec)
        if not readable:
            readers = {name: each for name, each in entries(ENCODER).items() if zoo.spec.family in each.families}
            encoders = ", ".join(name for name, each in readers.items() if each.several_sizes)
            flag = "--all_sizes True: " if config.data.all_sizes else ""
            firsts = [part for part in getattr(zoo, "parts", ()) if part.spec in (zoo.spec, spec)]
            named = " and ".join(f"{part.spec.description} ({quoted(part.names[0])})" for part in firsts)
            raise UserError(
                f"{flag}zoo '{dataset}' has networks of {len(zoo.specs)} sizes, which only --enc_mode "
                f"{encoders} reads, without branches beside it, and trees that read hyperparameters, or invariants of "
                f"equally many blocks; --where COLUMN=VALUE reads a part of the zoo; the first of each are {named}"
            )
