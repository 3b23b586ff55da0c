"""Trained predictors: how they are written and read, what they predict, and how that is measured."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from nfn_transformer import atomic_files
from nfn_transformer.bounded_text import parse_json
from nfn_transformer.errors import RunError
from nfn_transformer.families.registry import AnySpec
from nfn_transformer.hashing import tensors_checksum
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.consensus import CONSENSUS_FILE, Consensus, load_consensus
from nfn_transformer.models.predictor import Features, Predictor, build_predictor
from nfn_transformer.training.config import NETWORK, spec_from_json
from nfn_transformer.training.number_tasks import AccuracyTask
from nfn_transformer.training.run_directory import RunDirectory, digest_file, digest_line, read_json
from nfn_transformer.training.task import Task, task_from_json
from nfn_transformer.training.trees import tree_task
from nfn_transformer.trees import features as tree_features
from nfn_transformer.trees.features import features_of_checkpoints, features_of_networks
from nfn_transformer.trees.fitting import TreeModel
from nfn_transformer.trees.libraries import tree_library
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

EVALUATION_BATCH = 256

# One entry, as safetensors does not keep the order of several, and one model shall be one sequence of bytes.
_HEADER, _CHECKSUM = "predictor", "checksum"


class TrainedPredictor(Protocol):
    """A trained predictor, whatever its kind."""

    spec: AnySpec
    """sizes of the networks that it learned from"""
    task: Task
    """what its outputs say of a network"""
    consensus: Consensus | None
    """what the training side's good networks agree on, where it is read"""

    @property
    def model(self) -> Predictor | TreeModel:
        """Return the network or the trees."""

    @property
    def size(self) -> dict[str, int]:
        """Return how many parameters or trees it has, under that name."""

    def supports(self, spec: AnySpec) -> bool:
        """Return whether it reads networks of these sizes."""

    def outputs(self, zoo: Zoo | MixedZoo, index: Tensor) -> Tensor:
        """Return the outputs [n, ...], on the CPU, of the checkpoints that `index` [n] selects in a zoo there."""

    def outputs_of(self, weights: Weights) -> Tensor:
        """Return the outputs [n, ...], on the CPU, of n networks there."""


class TrainedNetwork:
    """A neural network."""

    def __init__(self, model: Predictor, device: torch.device, task: Task | None = None):
        self.model, self.spec, self.device, self.task = model.to(device), model.spec, device, task or AccuracyTask()
        self.consensus = model.consensus

    @property
    def size(self) -> dict[str, int]:
        """Return the number of its parameters."""
        return {"parameters": sum(parameter.numel() for parameter in self.model.parameters())}

    def supports(self, spec: AnySpec) -> bool:
        """Return whether it reads networks of these sizes."""
        return self.model.supports(spec)

    def outputs(self, zoo: Zoo | MixedZoo, index: Tensor) -> Tensor:
        """Return the outputs [n, ...] of the checkpoints that `index` [n] selects."""
        return predict_outputs(self.model, zoo, index)

    def outputs_of(self, weights: Weights) -> Tensor:
        """Return the outputs [n, ...] of n networks on the CPU."""
        starts = range(0, weights.batch, EVALUATION_BATCH)
        dtype = next(self.model.parameters()).dtype
        parts = (weights[start : start + EVALUATION_BATCH].to(self.device, dtype) for start in starts)
        return outputs_of_features(self.model, map(self.model.featurize, parts))


def predict_outputs(model: Predictor, zoo: Zoo | MixedZoo, index: Tensor) -> Tensor:
    """Return outputs [n, ...], on the CPU, of the checkpoints that `index` [n] selects in a zoo on the CPU."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for batch in index.split(EVALUATION_BATCH):
            places, outputs = [], []
            for positions, rows, zoo_of_size in zoo.by_size(batch):
                places.append(positions)
                outputs.append(model(zoo_of_size.weights_of(rows).to(model.device)))
            parts.append(torch.cat(outputs)[torch.cat(places).argsort()])
    return torch.cat(parts).cpu()


def outputs_of_features(model: Predictor, batches: Iterable[Features]) -> Tensor:
    """Return outputs [n, ...], on the CPU, of n networks whose features come in batches on the model's device."""
    model.eval()
    with torch.inference_mode():
        parts = [model.from_features(features) for features in batches]
    return torch.cat(parts).cpu()


class TrainedTrees:
    """A tree model, whose outputs are numbers as they are; accuracies may leave [0, 1]."""

    def __init__(self, model: TreeModel, spec: AnySpec, features: str, task: Task, consensus: Consensus | None = None):
        self.model, self.spec, self.features, self.task, self.consensus = model, spec, features, task, consensus

    @property
    def size(self) -> dict[str, int]:
        """Return the number of its trees."""
        return {"trees": self.model.trees}

    def supports(self, spec: AnySpec) -> bool:
        """Return whether it reads networks of these sizes."""
        is_alike = self.consensus is None or self.consensus.supports(spec)
        return is_alike and tree_features.supports(self.features, self.spec, spec)

    def outputs(self, zoo: Zoo | MixedZoo, index: Tensor) -> Tensor:
        """Return the numbers [n] of the checkpoints that `index` [n] selects."""
        return self._predict(features_of_checkpoints(self.features, zoo, index, self.consensus))

    def outputs_of(self, weights: Weights) -> Tensor:
        """Return the numbers [n] of n networks on the CPU.

        Raises:
            RunError: the trees read hyperparameters, which weights do not tell.
        """
        return self._predict(features_of_networks(self.features, weights, self.consensus))

    def _predict(self, features: Tensor) -> Tensor:
        try:
            return torch.from_numpy(self.model.predict(features.numpy()))
        except ValueError as error:  # trees of another run
            raise RunError(f"the trees do not fit the networks' features: {error}") from None


def save_predictor(path: Path, model: Predictor, epoch: int, task: Task | None = None) -> None:
    """Write a network after `epoch` in one step: its weights (safetensors), and in the header what rebuilds it.

    Without a task it predicts accuracies.
    """
    header = {"epoch": epoch, "networks": asdict(model.spec), "predictor": model.config.to_json()}
    header |= {"task": task.to_json()} if task is not None and task.name != "accuracy" else {}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_files.replacing(path) as temporary:
        text = json.dumps({**header, _CHECKSUM: tensors_checksum(json.dumps(header), tensors)})
        save_file(tensors, temporary, metadata={_HEADER: text})


def load_network(path: Path) -> tuple[Predictor, int, Task]:
    """Return the network in a file, on the CPU, the epoch that it was saved after, and its task.

    Raises:
        RunError: the file is missing, damaged, or of another version.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file; a run writes it after its first epoch")
    try:
        with safe_open(path, framework="pt") as stored:
            header = parse_json(stored.metadata()[_HEADER])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no dict
        expected = header.pop(_CHECKSUM, None)  # runs of earlier versions have none
        if expected is not None and expected != tensors_checksum(json.dumps(header), tensors):
            raise ValueError("damaged: its weights have another checksum than they were written with")
        spec, config = spec_from_json(header["networks"]), ModelConfig.from_json(header["predictor"])
        task = task_from_json(header["task"]) if "task" in header else AccuracyTask()
        with _at_most(sum(tensor.numel() for tensor in tensors.values())):
            model = build_predictor(spec, config, seed=0, outputs=task.outputs, kind=task.predictor)
        model.load_state_dict(tensors)
        model.to_predictions = task.predictions
        return model, int(header["epoch"]), task
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not a predictor of this version: {error}") from None


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop with a ValueError where modules are built that have more parameters than so many numbers."""
    left = count

    def count_parameter(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise ValueError(f"its configuration has more parameters than the file's {count:,} numbers")

    hook = register_module_parameter_registration_hook(count_parameter)
    try:
        yield
    finally:
        hook.remove()


def load_trained(directory: RunDirectory, device: torch.device) -> TrainedPredictor:
    """Return the best predictor of a run; a network goes to `device`.

    Raises:
        RunError: the run has none yet, or it is damaged.
    """
    config, spec = directory.read_config()
    if config.model == NETWORK:
        model, _, task = load_network(directory.best_file)
        return TrainedNetwork(model, device, task)
    library = tree_library(config.predictor.library)
    path = directory.path / library.file_name
    if not path.is_file():
        raise RunError(f"{path}: no such file; a run writes it after its last round")
    try:
        content = path.read_bytes()
        digest = digest_file(path)
        if digest.is_file() and digest.read_text(encoding="utf-8", errors="replace") != digest_line(path, content):
            raise ValueError("damaged: it has another checksum than it was written with")
        task = tree_task(config.data.task, read_json(directory.split_file).get("classes", ()))
        features = config.predictor.features
        consensus = None
        if tree_features.TREE_FEATURES[features].has_consensus:
            consensus = load_consensus(directory.path / CONSENSUS_FILE, spec)
        return TrainedTrees(library.parse(content), spec, features, task, consensus)
    except ValueError as error:
        raise RunError(f"{path}: holds no trees: {error}") from None
