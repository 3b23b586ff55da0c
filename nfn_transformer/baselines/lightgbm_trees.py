"""LightGBM on flattened weights: boosted trees and random forests, trained once, memory bounded."""

import logging
from typing import ClassVar

import lightgbm
import numpy as np
from numpy import ndarray

from nfn_transformer.baselines.tree_config import BoostingConfig, TreeConfig
from nfn_transformer.baselines.tree_fitting import Observer, Sides

# LightGBM copies all values in double precision to choose the bins of a column, so it is given some columns at a time.
_COLUMNS = 2048


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
        try:
            self._booster = lightgbm.Booster(model_str=content.decode())
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error).splitlines()[0]) from None

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


def _device_type(device: str) -> str:
    """LightGBM's word for the device. Its builds cannot be asked, only tried."""
    if device == "cpu":
        return "cpu"
    inputs = np.arange(8, dtype=np.float32)[:, None]
    for kind in ("cuda", "gpu"):  # gpu is OpenCL
        try:
            data = lightgbm.Dataset(inputs, inputs[:, 0])
            lightgbm.train({"device_type": kind, "min_data_in_leaf": 1, "verbosity": -1}, data, 1)
        except lightgbm.basic.LightGBMError:
            continue
        return kind
    return "cpu"


def fit(
    config: TreeConfig,
    boosting: BoostingConfig,
    sides: Sides,
    seed: int,
    threads: int,
    device: str,
    observer: Observer,
) -> LightGBMTrees:
    """Train round after round; returns the trees of the best round.

    Args:
        config: parameters as LightGBM names them.
        boosting: how many rounds.
        sides: training and validation side.
        seed: in [0, 2**31), of the draws of rows and columns.
        threads: of the CPU.
        device: cpu, cuda or cuda:N.
        observer: told of each round.
    """
    parameters = {
        **config.parameters,
        "seed": seed,
        "num_threads": threads,
        # The choice between the two ways of counting is otherwise timed, and their sums are rounded otherwise.
        "deterministic": True,
        "force_col_wise": True,
        "device_type": _device_type(device),
        "gpu_device_id": int(device.partition(":")[2] or 0),
        "verbosity": -1,
    }
    train = _binned(sides.train, sides.train_labels, parameters)
    sides.train = None
    validation = lightgbm.Dataset(sides.validation, sides.validation_labels, reference=train).construct()
    sides.validation = None
    follower = _Follower(train, validation, observer)
    booster = lightgbm.train(
        parameters,
        train,
        boosting.rounds,
        valid_sets=[train, validation],
        valid_names=["training", "validation"],
        feval=follower.see_predictions,
        callbacks=[follower],
        keep_training_booster=True,
    )
    return LightGBMTrees(booster.model_to_string(num_iteration=follower.best_round).encode())


def _binned(inputs: ndarray, labels: ndarray, parameters: dict) -> lightgbm.Dataset:
    whole = None
    for start in range(0, inputs.shape[1], _COLUMNS):
        columns = inputs[:, start : start + _COLUMNS]
        names = [f"number_{index}" for index in range(start, start + columns.shape[1])]
        part = lightgbm.Dataset(columns, labels, feature_name=names, params=parameters).construct()
        whole = part if whole is None else whole.add_features_from(part)
    return whole


class _Follower:
    """Hands each round to the observer, and remembers the best one."""

    def __init__(self, train: lightgbm.Dataset, validation: lightgbm.Dataset, observer: Observer):
        self.best_round = 0
        self._train, self._validation, self._observer = train, validation, observer
        self._train_loss, self._predictions = 0.0, np.empty(0)

    def see_predictions(self, predictions: ndarray, data: lightgbm.Dataset) -> list:
        """LightGBM asks for a metric on each side, and so shows the predictions that it has at hand."""
        if data is self._validation:
            self._predictions = predictions.copy()
        else:
            self._train_loss = float(np.sqrt(np.mean(np.square(predictions - data.get_label()))))
        return []

    def __call__(self, environment: lightgbm.callback.CallbackEnv) -> None:
        """Called by LightGBM after each round."""
        is_best, is_last = self._observer.finish_round(self._train_loss, self._predictions)
        if is_best:
            self.best_round = environment.iteration + 1
        if is_last:
            raise lightgbm.callback.EarlyStopException(self.best_round - 1, [])
