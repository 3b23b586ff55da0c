"""LightGBM on flattened weights: boosted trees and random forests, trained once, memory bounded."""

import functools
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import lightgbm
import numpy as np
from numpy import ndarray

from nfn_transformer.rms import root_mean_square
from nfn_transformer.trees.fitting import Observer, Settings, Sides

# LightGBM copies all values in double precision to choose the bins of a column, so it is given some columns at a time.
_COLUMNS = 2048

_SIZES, _END = re.compile(rb"^tree_sizes=(.*)\n", re.MULTILINE), b"\npandas_categorical:null\n"


class _Log:
    """LightGBM's own words, for whoever turns Python's logging on."""

    _logger: ClassVar = logging.getLogger("lightgbm")

    def info(self, message: str) -> None:
        self._logger.debug(message)

    def warning(self, message: str) -> None:
        self._logger.debug(message)


lightgbm.register_logger(_Log())


class LightGBMTrees:
    """Trees that LightGBM has fitted, as its text."""

    def __init__(self, content: bytes):
        """Raises ValueError where `content` is no such text."""
        self.content = content
        sizes = _SIZES.search(content)
        if sizes is None or not content.endswith(_END):
            raise ValueError("its beginning or its end is missing")
        try:
            # By the sizes LightGBM reads trees side by side, where one that is damaged ends the whole process.
            self._booster = lightgbm.Booster(model_str=_SIZES.sub(b"", content).decode())
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error).splitlines()[0]) from None
        if self.trees != len(sizes[1].split()):
            raise ValueError(f"it has {self.trees} trees, expected {len(sizes[1].split())}")

    @property
    def trees(self) -> int:
        """The number of trees."""
        return self._booster.num_trees()

    def predict(self, inputs: ndarray) -> ndarray:
        """Predicted accuracies [n] of flattened networks [n, numbers]."""
        return self._booster.predict(inputs)


def device_for(device: str) -> tuple[str, str | None]:
    """The device that this build of LightGBM can train on, and, where it is not `device`, why."""
    if device == "cpu" or _device_type(device) != "cpu":
        return device, None
    return "cpu", "this build of LightGBM has neither CUDA nor OpenCL on this machine"


@functools.cache
def _device_type(device: str) -> str:
    """LightGBM's word for the device. Its builds cannot be asked, only tried."""
    if device == "cpu":
        return "cpu"
    inputs = np.arange(8, dtype=np.float32)[:, None]
    for kind in ("cuda", "gpu"):  # gpu is OpenCL
        parameters = {"device_type": kind, "gpu_device_id": _number(device), "min_data_in_leaf": 1, "verbosity": -1}
        try:
            with _unheard():
                lightgbm.train(parameters, lightgbm.Dataset(inputs, inputs[:, 0]), 1)
        except lightgbm.basic.LightGBMError:
            continue
        return kind
    return "cpu"


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0)


@contextmanager
def _unheard() -> Iterator[None]:
    """What LightGBM's library itself prints goes nowhere: it calls fatal what is only tried."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def fit(settings: Settings, sides: Sides, observer: Observer) -> LightGBMTrees:
    """Train round after round, telling `observer`; returns the trees of the best round."""
    parameters = {
        **settings.config.parameters,
        "seed": settings.seed,
        "num_threads": settings.threads,
        # The choice between the two ways of counting is otherwise timed, and their sums are rounded otherwise.
        "deterministic": True,
        "force_col_wise": True,
        "device_type": _device_type(settings.device),
        "gpu_device_id": _number(settings.device),
        "verbosity": -1,
    }
    train = _binned(sides.train, sides.train_labels, parameters)
    sides.train = None
    validation = lightgbm.Dataset(sides.validation, sides.validation_labels, reference=train).construct()
    sides.validation = None
    forest = (
        _Forest(float(np.mean(train.get_label(), dtype=float)))
        if settings.config.parameters["boosting"] == "rf"
        else None
    )
    follower = _Follower(train, validation, observer, forest)
    booster = lightgbm.train(
        parameters,
        train,
        settings.boosting.rounds,
        valid_sets=[train, validation],
        valid_names=["training", "validation"],
        feval=follower.see_predictions,
        callbacks=[follower],
        keep_training_booster=True,
    )
    if forest is not None:
        for tree in forest.barren:
            booster.set_leaf_output(tree, 0, forest.mean)
    return LightGBMTrees(booster.model_to_string(num_iteration=follower.best_trees).encode())


def _binned(inputs: ndarray, labels: ndarray, parameters: dict) -> lightgbm.Dataset:
    whole = None
    for start in range(0, inputs.shape[1], _COLUMNS):
        columns = inputs[:, start : start + _COLUMNS]
        names = [f"number_{index}" for index in range(start, start + columns.shape[1])]
        part = lightgbm.Dataset(columns, labels, feature_name=names, params=parameters).construct()
        whole = part if whole is None else whole.add_features_from(part)
    return whole


class _Forest:
    """Mends LightGBM's random forests, where a tree that finds no split counts as 0: here it predicts `mean`.

    Attributes: mean, of the training labels; barren, the numbers of such trees, from 0.
    """

    def __init__(self, mean: float):
        self.mean, self.barren = mean, []
        self._splits, self._shown, self._above = 0, None, None

    def mend(self, booster: lightgbm.Booster, predictions: list[ndarray]) -> list[ndarray]:
        """What the forest predicts after a round, where LightGBM shows `predictions` of each side.

        After i rounds it shows (i - 1) / i of what it has shown before and 1 / i of the new tree's predictions, but
        where that tree has no split the same as before.
        """
        trees = booster.current_iteration()
        splits = int(booster.feature_importance("split").sum())
        if self._shown is None:
            self._shown = self._above = [np.zeros_like(shown) for shown in predictions]
        if splits == self._splits:
            self.barren.append(trees - 1)
        else:
            both = zip(self._above, predictions, self._shown, strict=True)
            self._above = [above + (trees * new - (trees - 1) * old - self.mean) for above, new, old in both]
        self._splits, self._shown = splits, predictions
        return [self.mean + above / trees for above in self._above]


class _Follower:
    """Hands each round to the observer, and remembers how many trees there were after the best one.

    These can be fewer than rounds: where no split is found, boosting adds no tree.
    """

    def __init__(
        self, train: lightgbm.Dataset, validation: lightgbm.Dataset, observer: Observer, forest: _Forest | None
    ):
        self.best_trees = 0
        self._train_labels, self._validation = train.get_label(), validation
        self._observer, self._forest = observer, forest
        self._predictions = [np.empty(0), np.empty(0)]

    def see_predictions(self, predictions: ndarray, data: lightgbm.Dataset) -> list:
        """LightGBM asks for a metric on each side, and so shows the predictions that it has at hand."""
        self._predictions[data is self._validation] = predictions.copy()
        return []

    def __call__(self, environment: lightgbm.callback.CallbackEnv) -> None:
        """Called by LightGBM after each round."""
        train, validation = self._predictions
        if self._forest is not None:
            train, validation = self._forest.mend(environment.model, [train, validation])
        train_loss = root_mean_square(train - self._train_labels)
        is_best, is_last = self._observer.finish_round(train_loss, validation)
        if is_best:
            self.best_trees = environment.model.current_iteration()
        if is_last:
            raise lightgbm.callback.EarlyStopException(environment.iteration, [])
