"""The two kinds of predictors as an experiment sees them: something to describe, to train, and to read back."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from nfn_transformer.errors import RunError, UserError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.boosting import train_trees
from nfn_transformer.training.config import NETWORK, RunConfig
from nfn_transformer.training.data import RunData
from nfn_transformer.training.distributed import SINGLE_PROCESS, Distributed
from nfn_transformer.training.loop import IN_MEMORY_IF_IT_FITS, Feeding, train
from nfn_transformer.training.progress import Progress, Record
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.training.saved_predictor import load_predictor
from nfn_transformer.training.step import check_preparations
from nfn_transformer.training.trained_predictor import TrainedNetwork, TrainedPredictor, TrainedTrees
from nfn_transformer.training.trainer import Trainer
from nfn_transformer.trees.features import TREE_FEATURES, check_readable, supports
from nfn_transformer.trees.libraries import tree_library
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

Report = Callable[[Record], None]


class Learner(Protocol):
    """A predictor that is not trained yet.

    `device` is what it is trained on, as a run's configuration names it.
    """

    device: str

    def describe(self) -> str:
        """What it is, for the screen."""


@dataclass(frozen=True)
class Job:
    """A learner and what its training takes: run, where it writes; data; resume, whether to go on from where an
    earlier command was stopped; report, called with each finished epoch or round."""

    learner: Learner
    run: RunDirectory
    data: RunData
    resume: bool
    report: Report


def train_learners(
    jobs: Sequence[Job], feeding: Feeding = IN_MEMORY_IF_IT_FITS, processes: Distributed = SINGLE_PROCESS
) -> list[Progress]:
    """Train networks all at once, tree models one after another; see `training.train`.

    Raises:
        RunError: the state of a run to resume is damaged.
        UserError: the configuration wants what this machine cannot do.
    """
    if not all(isinstance(job.learner, NetworkLearner) for job in jobs):
        return [job.learner.train(job) for job in jobs]
    trainers = [job.learner.trainer(job, processes) for job in jobs]
    return train(trainers, feeding, processes)


def check_learner(config: RunConfig, zoo: Zoo | MixedZoo) -> None:
    """Raise UserError where what a configuration trains cannot read a zoo's networks."""
    predictor, dataset = config.predictor, config.data.dataset
    for spec in zoo.specs:
        if isinstance(predictor, ModelConfig):
            predictor.check(spec, dataset)
            readable = spec == zoo.spec or predictor.reads_several_sizes
        else:
            check_readable(predictor.features, zoo, dataset)
            readable = supports(predictor.features, zoo.spec, spec)
        if not readable:
            raise UserError(
                f"--all_sizes True: zoo '{dataset}' has networks of {len(zoo.specs)} sizes, which only --enc_mode "
                "complete reads, without branches beside it, and trees that read hyperparameters, or invariants of "
                "equally many blocks"
            )


def build_learner(config: RunConfig, zoo: Zoo | MixedZoo) -> Learner:
    """The learner of a configuration for a zoo's networks.

    Raises:
        UserError: it cannot be made.
    """
    check_learner(config, zoo)
    return NetworkLearner(config, zoo.spec) if config.model == NETWORK else TreeLearner(config)


def load_trained(run: RunDirectory, device: torch.device) -> TrainedPredictor:
    """The best predictor that a run has left; a network goes to `device`.

    Raises:
        RunError: the run has none yet, or it is damaged.
    """
    config, spec = run.read_config()
    if config.model == NETWORK:
        model, _ = load_predictor(run.best_file)
        return TrainedNetwork(model, device)
    library = tree_library(config.predictor.library)
    path = run.path / library.file_name
    if not path.is_file():
        raise RunError(f"{path}: no such file; a run writes it after its last round")
    try:
        return TrainedTrees(library.parse(path.read_bytes()), spec, config.predictor.features)
    except ValueError as error:
        raise RunError(f"{path}: holds no trees: {error}") from None


class NetworkLearner:
    """A neural network, trained by epochs."""

    def __init__(self, config: RunConfig, spec: TransformerSpec):
        check_preparations(config.training, torch.device(config.device))
        self.config, self.device = config, config.device
        try:
            self.model = build_predictor(spec, config.predictor, config.seed).to(config.device)
        except (RuntimeError, MemoryError) as error:  # PyTorch's allocator raises the former
            reason = str(error).splitlines()[0]
            raise UserError(f"the model cannot be made, fewer channels or outputs may help: {reason}") from None

    def describe(self) -> str:
        """Its branches and the number of its parameters."""
        modes, parameters = self.config.predictor, sum(p.numel() for p in self.model.parameters())
        several = f"{modes.ensemble} times " if modes.ensemble > 1 else ""
        return (
            f"encoder {modes.enc_mode}, classifier {modes.cls_mode}, embedding {modes.emb_mode}; "
            f"{several}{parameters // modes.ensemble:,} parameters"
        )

    def trainer(self, job: Job, processes: Distributed) -> Trainer:
        """Its training, taken up where it was stopped if the job says so."""
        trainer = Trainer(
            self.model, job.data, self.config.training, self.config.seed, job.run, job.report, processes.is_main
        )
        if job.resume:
            trainer.resume()
        return trainer


class TreeLearner:
    """A tree model, trained by rounds; it reads the zoo on the CPU, also where its library trains on a GPU."""

    def __init__(self, config: RunConfig):
        self.device, reason = tree_library(config.predictor.library).device_for(config.device)
        if reason:
            print(f"warning: --device {config.device}: {reason}; training on the CPU", file=sys.stderr)
        self.config = replace(config, device=self.device)

    def describe(self) -> str:
        """Its library and kind."""
        config = self.config.predictor
        return f"{config.library}-{config.model} on {TREE_FEATURES[config.features].help}"

    def train(self, job: Job) -> Progress:
        """Train all rounds; an interrupted model is trained anew, as neither library goes on to the same bits."""
        return train_trees(self.config, job.data, job.run, job.report)
