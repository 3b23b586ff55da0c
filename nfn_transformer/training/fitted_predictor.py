"""A fitted predictor with the run that made it: predicts, is evaluated on a zoo, and is saved as a run directory."""

import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nfn_transformer.errors import RunError, ZooError, type_of
from nfn_transformer.models.editor import EditPredictor
from nfn_transformer.models.predictor import Ensemble, Predictor
from nfn_transformer.training.class_task import ClassTask
from nfn_transformer.training.data import load_zoo, recorded_split, split_record
from nfn_transformer.training.evaluation import Evaluation
from nfn_transformer.training.run_directory import RunDirectory, read_json
from nfn_transformer.training.trained_predictor import EVALUATION_BATCH, TrainedPredictor, load_trained
from nfn_transformer.trees.fitting import TreeModel
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.zoo.faults import Fault
from nfn_transformer.zoo.loose_checkpoints import Checkpoint, LooseCheckpoints, read_loose_checkpoints
from nfn_transformer.zoo.network_facts import FACTS, FIELDS
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.runs import TEST, TRAIN, VALIDATION, SeenNetworks, canonical_epoch
from nfn_transformer.zoo.several_sizes import MixedZoo

Checkpoints = Checkpoint | Sequence[Checkpoint]
"""Paths of checkpoints, folders or zips, or state dicts: one or several."""


class FittedPredictor:
    """Predictor of networks' labels from their weights, as `fit` and `load_predictor` return it.

    ```python
    predictor = nfn.load_predictor("runs/digits-complete")
    predictor.predict("checkpoint.pt")  # tensor([0.9312], dtype=torch.float64)
    print(predictor.evaluate(zoo))  # tau 0.9037 [0.8864, 0.9188]  R2 0.9832  MAE 0.0249 ...
    ```

    Args:
        directory: run directory with a finished epoch, or a tree model's last round.
        device: device that predicts.

    Raises:
        RunError: the directory has no predictor yet, or is damaged.
    """

    def __init__(self, directory: RunDirectory, device: torch.device):
        self.directory = directory
        self.config, self.spec = directory.read_config()
        self.trained: TrainedPredictor = load_trained(directory, device)

    @property
    def model(self) -> Predictor | TreeModel:
        """Return the network, an `nn.Module`, or the tree model."""
        return self.trained.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes; none where labels are numbers."""
        return self.trained.task.classes if isinstance(self.trained.task, ClassTask) else ()

    @property
    def history(self) -> list[dict[str, float]]:
        """Return the finished epochs or rounds, a dictionary for each row of metrics.csv.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self.directory.metrics_file
        try:
            with open(path, newline="", encoding="utf-8") as file:
                return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        except (OSError, TypeError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None

    @property
    def results(self) -> dict[str, Any]:
        """Return the content of results.json: validation and test measures; empty before the training is complete.

        Raises:
            RunError: the file is damaged.
        """
        path = self.directory.results_file
        return read_json(path) if path.is_file() else {}

    def predict(self, networks: Checkpoints | Weights | Zoo | MixedZoo, n_heads: int | None = None) -> Tensor:
        """Return the predicted labels [n] of n networks: float64 numbers, or int64 positions in `classes`.

        ```python
        predictor.predict(["a.pt", "b.pt"])  # files, folders (every .pt below them, sorted) and zips
        predictor.predict(network.state_dict())
        predictor.predict(zoo.weights(torch.arange(8)))
        ```

        Args:
            networks: paths, state dicts, weights, or a zoo.
            n_heads: heads of the networks in paths and state dicts, which do not tell them; the run's by default.

        Raises:
            TypeError: `networks` is anything else.
            ZooError: a path or a state dict is no network that the predictor reads.
            SpecError: weights have sizes that the predictor does not read.
        """
        return self.trained.task.predictions(self._outputs(networks, n_heads))

    def predict_probabilities(
        self, networks: Checkpoints | Weights | Zoo | MixedZoo, n_heads: int | None = None
    ) -> Tensor:
        """Return the probabilities of all classes, float64 [n, classes], of n networks; see `predict`.

        Raises:
            RunError: the predictor was not trained to classify.
        """
        task = self.trained.task
        if not isinstance(task, ClassTask):
            raise RunError(
                f"{self.directory.path}: has no probabilities; expected a run of task classify, got {task.name}"
            )
        return task.probabilities(self._outputs(networks, n_heads))

    def edit(self, networks: Checkpoints | NetworkWeights | Zoo, weights_key: str | None = None) -> NetworkWeights:
        """Return the changed INRs of n INRs, on the CPU.

        ```python
        changed = predictor.edit(zoo.weights(torch.arange(8)))
        pictures = nfn.draw_pictures(changed, side=28)  # [8, colours, 28, 28]
        ```

        Args:
            networks: paths, state dicts, weights, or a zoo, of the sizes and the function of the run's INRs.
            weights_key: key of the weights in files that hold several networks.

        Raises:
            RunError: the predictor was not trained to edit, or is an ensemble. A zoo's INRs are others.
            ZooError: a path or a state dict is no INR that the predictor reads.
            SpecError: weights are of other INRs.
        """
        model, path = self.model, self.directory.path
        if isinstance(model, Ensemble):
            raise RunError(f"{path}: no INR draws the mean of an ensemble's pictures; expected one member")
        if not isinstance(model, EditPredictor):
            raise RunError(f"{path}: edits no networks; expected a run of task edit")
        if isinstance(networks, Zoo):
            self._check_sizes(networks)
            networks = cast(NetworkWeights, networks.weights(torch.arange(len(networks))))
        if not isinstance(networks, NetworkWeights):
            (group,) = self.read_checkpoints(networks, None, weights_key)[1]  # INRs of one size
            networks = cast(NetworkWeights, group.weights)
        networks.check(model.spec)
        model.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, networks.batch, EVALUATION_BATCH):
                chunk = networks[start : start + EVALUATION_BATCH].to(model.device)
                parts.append(model.edit(chunk).to("cpu"))
        columns = zip(*(part.tensors() for part in parts), strict=True)
        return parts[0].map(lambda _: torch.cat(next(columns)))

    def _outputs(self, networks: Checkpoints | Weights | Zoo | MixedZoo, n_heads: int | None) -> Tensor:
        if isinstance(networks, Zoo | MixedZoo):
            self._check_sizes(networks)
            return self.trained.outputs(networks, torch.arange(len(networks)))
        if isinstance(networks, Weights):
            return self.trained.outputs_of(networks)
        return self.outputs_of_checkpoints(self.read_checkpoints(networks, n_heads)[1])[0]

    def outputs_of_checkpoints(self, groups: Sequence[LooseCheckpoints]) -> tuple[Tensor, list[str]]:
        """Return the task's outputs [n, ...] for n checkpoints that `read_checkpoints` gave, and their sides [n].

        The side is train or validation for weights that the predictor has seen, else "".
        """
        places = torch.tensor([position for group in groups for position in group.positions])
        outputs = torch.cat([self.trained.outputs_of(group.weights) for group in groups])[places.argsort()]
        sides, seen = [""] * len(places), self.seen_networks()
        for group in groups:
            for position, weights in zip(group.positions, group.fingerprints, strict=True):
                sides[position] = seen.side(weights).replace(TEST, "")
        return outputs, sides

    def read_checkpoints(
        self,
        checkpoints: Checkpoints,
        n_heads: int | None = None,
        weights_key: str | None = None,
        excluded: list[Fault] | None = None,
    ) -> tuple[list[str], list[LooseCheckpoints]]:
        """Return the names of checkpoints, and the checkpoints themselves, in a group for each size; see `predict`.

        `excluded` is that of `read_loose_checkpoints`.
        """
        several = [checkpoints] if isinstance(checkpoints, str | Path | Mapping) else checkpoints
        if not isinstance(several, Sequence) or not all(isinstance(each, str | Path | Mapping) for each in several):
            raise TypeError(f"predict: expected paths, state dicts, weights or a zoo, got {type_of(checkpoints)}")
        data = self.config.data
        sure = {FIELDS.get(fact, fact) for fact in FACTS if getattr(data, fact) is not None}
        heads = n_heads or data.n_heads
        return read_loose_checkpoints(several, self.spec, self.trained.supports, heads, weights_key, sure, excluded)

    def evaluate(self, zoo: Zoo | MixedZoo, split: str = "auto", index: Tensor | None = None) -> Evaluation:
        """Return the predictions for a labelled zoo, and their measures.

        Args:
            zoo: networks of sizes that the predictor reads.
            split: `test`, the run's own test split; `all`, the whole zoo; `unseen`, what the predictor was neither
                trained on nor selected by. `auto` is `test` for the zoo of the training, wherever that lies, and
                `unseen` for any other.
            index: indices of the networks that may count, where these are not the test split; all of them for None.

        Raises:
            RunError: `split` is test and the zoo another, or nothing of the zoo is unseen. The networks have sizes
                that the predictor does not read.
            ValueError: `split` is another word.
        """
        if split not in ("auto", "test", "all", "unseen"):
            raise ValueError(f"split '{split}', expected auto, test, all or unseen")
        if split in ("auto", "test"):
            try:
                return self.evaluate_on(zoo, self.test_split(zoo), "test")
            except (RunError, ZooError):
                if split == "test":
                    raise
        index = torch.arange(len(zoo)) if index is None else index
        kept = index if split == "all" else self.unseen(zoo, index)
        left_out = len(index) - len(kept)
        return self.evaluate_on(zoo, kept, "unseen" if left_out else "all", left_out)

    def seen_networks(self) -> SeenNetworks:
        """Return the networks that the predictor was trained on, selected by and tested on.

        Records of earlier versions tell names alone; where the zoo is still there, the weights are taken from it.

        Raises:
            RunError: the record is damaged.
        """
        data, source = self.config.data, self.directory.split_file
        record = read_json(source)
        if "networks" not in record:
            with suppress(RunError, ZooError):
                zoo = load_zoo(data)
                record = split_record(zoo, recorded_split(zoo, record, source))
        try:
            return SeenNetworks.from_record(record, data.dataset, canonical_epoch(data.ckpt_epoch))
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise RunError(f"{source}: is not the split of a run: {error}") from None

    def unseen(self, zoo: Zoo | MixedZoo, index: Tensor) -> Tensor:
        """Return those of the networks `index` [n] that the predictor was neither trained on nor selected by.

        Raises:
            RunError: there are none.
        """
        sides = self.seen_networks().sides(zoo, index)
        kept = index[[side not in (TRAIN, VALIDATION) for side in sides]]
        if not len(kept):
            raise RunError(
                f"{self.directory.path}: its predictor was trained on, or selected by, all of these {len(index)} "
                "networks; --split all scores them all the same"
            )
        return kept

    def read_zoo(self) -> Zoo | MixedZoo:
        """Return the zoo that the predictor was trained on, read where it lay then.

        Raises:
            ZooError: the zoo is not there, or cannot be read.
        """
        return load_zoo(self.config.data)

    def test_split(self, zoo: Zoo | MixedZoo) -> Tensor:
        """Return the indices of the run's own test split in the zoo that it was trained on.

        Raises:
            RunError: the zoo is another, or the predictor was trained on all of it.
        """
        source = self.directory.split_file
        test = recorded_split(zoo, read_json(source), source).test
        if not len(test):
            raise RunError(f"{self.directory.path}: its predictor was trained on all networks, and has no test split")
        return test

    def evaluate_on(self, zoo: Zoo | MixedZoo, index: Tensor, split: str, left_out: int = 0) -> Evaluation:
        """Return the predictions for the networks `index` [n] of a zoo, and their measures.

        `left_out` counts the others, see `Evaluation`.

        Raises:
            RunError: the zoo has networks of sizes that the predictor does not read, or labels of another task.
            ZooError: the predictor does not know a class of the zoo.
        """
        self._check_sizes(zoo)
        task, labels = self.trained.task, self._labels(zoo)[index]
        outputs = self.trained.outputs(zoo, index)
        interval = task.interval(outputs, labels, [zoo.runs[i] for i in index.tolist()], self.config.seed)
        names, seen = [zoo.names[i] for i in index.tolist()], self.seen_networks()
        return Evaluation(
            split=split,
            names=names,
            predicted=task.predictions(outputs),
            labels=labels,
            metrics=task.measure(outputs, labels),
            interval=interval,
            columns=task.columns(outputs, labels),
            sides=[side.replace(TEST, "") for side in seen.sides(zoo, index)],
            left_out=left_out,
            references=task.references(labels, labels),
            note=seen.doubt(zoo),
        )

    def save(self, path: str | Path) -> None:
        """Write the predictor as a run directory, which `load_predictor` and `predict.py --run` read.

        Raises:
            RunError: something is at the path already, or the directory cannot be made.
        """
        path = Path(path)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise RunError(f"{path}: is not an empty directory; give another")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", suffix=".part") as folder:
                copy = Path(folder) / "run"
                ignored = shutil.ignore_patterns(self.directory.state_file.name, "wandb*", ".*")
                shutil.copytree(self.directory.path, copy, ignore=ignored).rename(path)
        except (OSError, shutil.Error) as error:
            raise RunError(f"{path}: cannot be written: {error}") from None

    def _labels(self, zoo: Zoo | MixedZoo) -> Tensor:
        """Return the zoo's labels [n], of classes as positions in the predictor's."""
        labels = self.trained.task.entry.labels
        if zoo.origin is not None and zoo.origin.labels != labels:
            raise RunError(
                f"{self.directory.path}: expected a zoo that is read with labels='{labels}', got '{zoo.origin.labels}'"
            )
        return self.trained.task.labels_of(zoo)

    def _check_sizes(self, zoo: Zoo | MixedZoo) -> None:
        for spec in zoo.specs:
            if not self.trained.supports(spec):
                run, source = self.spec, "the zoo" if zoo.origin is None else zoo.origin.data_path
                if run.kind != spec.kind:
                    kinds = f"expected {run.kind}, got {spec.kind}"
                    raise RunError(f"{source}: its networks are of another kind than the run's: {kinds}")
                names = [entry.name for entry in reversed(fields(run)) if entry.compare]
                name = next(name for name in names if vars(run)[name] != vars(spec)[name])
                expected = f"expected {name} {vars(run)[name]}, got {vars(spec)[name]}"
                raise RunError(f"{source}: its networks have other sizes than the run's: {expected}")

    def __repr__(self) -> str:
        size = ", ".join(f"{count:,} {name}" for name, count in self.trained.size.items())
        return (
            f"FittedPredictor({self.config.predictor.name}, {size}, trained on {self.config.data.dataset or 'a zoo'})"
        )
