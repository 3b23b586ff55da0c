"""LightGBM on flattened weights: boosted trees and random forests, trained once, memory bounded."""

import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import lightgbm
import numpy as np
from numpy import ndarray

from nfn_transformer.rms import root_mean_square
from nfn_transformer.trees.fitting import Observer, Settings, Sides
from nfn_transformer.trees.libraries import TreeLibrary
from nfn_transformer.trees.lightgbm_text import checked_text

# LightGBM copies all values in double precision to choose the bins of a column, so it is given some columns at a time.
_COLUMNS = 2048


class _Log:
    """Logger that passes LightGBM's messages to Python's logging, at level DEBUG."""

    _logger: ClassVar = logging.getLogger("lightgbm")

    def info(self, message: str) -> None:
        self._logger.debug(message)

    def warning(self, message: str) -> None:
        self._logger.debug(message)


lightgbm.register_logger(_Log())


class LightGBMTrees:
    """Trees that LightGBM has fitted, as text."""

    def __init__(self, content: bytes):
        """Parse trees.

        Raises:
            ValueError: `content` is not LightGBM's text, or a node of it is not sound.
        """
        self.content = content
        text, trees, self._width = checked_text(content)
        try:
            self._booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error).splitlines()[0]) from None
        if self.trees != trees:
            raise ValueError(f"it has {self.trees} trees, expected {trees}")

    @property
    def trees(self) -> int:
        """Number of trees."""
        return self._booster.num_trees()

    def predict(self, inputs: ndarray) -> ndarray:
        """Predict the labels [n] of n networks from their features [n, numbers].

        Raises:
            ValueError: the trees read other numbers.
        """
        if inputs.shape[1] != self._width:
            raise ValueError(f"networks of {inputs.shape[1]} numbers, the trees read {self._width}")
        return np.asarray(self._booster.predict(inputs))


def lightgbm_device(device: str) -> tuple[str, str | None]:
    """Return the device that this build of LightGBM trains on in place of `device`, and the reason if it differs."""
    if device == "cpu" or _device_type(device) != "cpu":
        return device, None
    return "cpu", "this build of LightGBM has neither CUDA nor OpenCL on this machine"


@functools.cache
def _device_type(device: str) -> str:
    """Return LightGBM's name of the device. A build's devices can only be tried."""
    if device == "cpu":
        return "cpu"
    inputs = np.arange(8, dtype=np.float32)[:, None]
    for kind in ("cuda", "gpu"):  # gpu is OpenCL
        parameters = {"device_type": kind, "gpu_device_id": _number(device), "min_data_in_leaf": 1, "verbosity": -1}
        try:
            with _silenced():
                lightgbm.train(parameters, lightgbm.Dataset(inputs, inputs[:, 0]), 1)
        except lightgbm.basic.LightGBMError:
            continue
        return kind
    return "cpu"


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0)


@contextmanager
def _silenced() -> Iterator[None]:
    """Discard what LightGBM's library prints: it calls fatal what is only tried."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def fit_lightgbm(settings: Settings, sides: Sides, observer: Observer) -> LightGBMTrees:
    """Train round after round, and return the trees of the best round."""
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
    del sides.train
    validation = lightgbm.Dataset(sides.validation, sides.validation_labels, reference=train).construct()
    del sides.validation
    is_forest = settings.config.parameters["boosting"] == "rf"
    forest = _Forest(float(np.mean(_labels(train), dtype=float))) if is_forest else None
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
    whole: lightgbm.Dataset | None = None
    for start in range(0, inputs.shape[1], _COLUMNS):
        columns = inputs[:, start : start + _COLUMNS]
        names = [f"number_{index}" for index in range(start, start + columns.shape[1])]
        part = lightgbm.Dataset(columns, labels, feature_name=names, params=parameters).construct()
        whole = part if whole is None else whole.add_features_from(part)
    assert whole is not None, "networks have at least one number"
    return whole


def _labels(data: lightgbm.Dataset) -> ndarray:
    return np.asarray(data.get_label())


class _Forest:
    """Random forest of LightGBM whose trees without a split predict the mean label, where LightGBM's predict 0.

    Attributes:
        mean: mean of the training labels.
        barren: indices of the trees without a split.
    """

    def __init__(self, mean: float):
        self.mean = mean
        self.barren: list[int] = []
        self._splits = 0
        self._shown: list[ndarray] = []
        self._above: list[ndarray] = []

    def mend(self, booster: lightgbm.Booster, predictions: list[ndarray]) -> list[ndarray]:
        """Return the forest's predictions of each side after a round, from those that LightGBM shows.

        After i rounds LightGBM shows (i - 1) / i of what it showed before, plus 1 / i of the new tree's predictions.
        It shows the same as before where the new tree has no split.
        """
        trees = booster.current_iteration()
        splits = int(booster.feature_importance("split").sum())
        if not self._shown:
            self._shown = self._above = [np.zeros_like(shown) for shown in predictions]
        if splits == self._splits:
            self.barren.append(trees - 1)
        else:
            both = zip(self._above, predictions, self._shown, strict=True)
            self._above = [above + (trees * new - (trees - 1) * old - self.mean) for above, new, old in both]
        self._splits, self._shown = splits, predictions
        return [self.mean + above / trees for above in self._above]


class _Follower:
    """Callback that hands each round to the observer, and remembers the number of trees after the best one.

    There can be fewer trees than rounds: boosting adds no tree where no split is found.
    """

    def __init__(
        self, train: lightgbm.Dataset, validation: lightgbm.Dataset, observer: Observer, forest: _Forest | None
    ):
        self.best_trees = 0
        self._train_labels, self._validation = _labels(train), validation
        self._observer, self._forest = observer, forest
        self._predictions = [np.empty(0), np.empty(0)]

    def see_predictions(self, predictions: ndarray, data: lightgbm.Dataset) -> list:
        """Take the predictions that LightGBM shows to a metric of each side."""
        self._predictions[data is self._validation] = predictions.copy()
        return []

    def __call__(self, environment: lightgbm.callback.CallbackEnv) -> None:
        """End a round, and stop the training after the last."""
        assert isinstance(environment.model, lightgbm.Booster)
        train, validation = self._predictions
        if self._forest is not None:
            train, validation = self._forest.mend(environment.model, [train, validation])
        train_loss = root_mean_square(train - self._train_labels)
        is_best, is_last = self._observer.finish_round(train_loss, validation)
        if is_best:
            self.best_trees = environment.model.current_iteration()
        if is_last:
            raise lightgbm.callback.EarlyStopException(environment.iteration, [])


LIBRARY = TreeLibrary("best.lightgbm.txt", fit_lightgbm, LightGBMTrees, lightgbm_device)
