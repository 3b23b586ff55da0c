"""XGBoost on flattened weights: rounds trained once, the best kept as it was, memory bounded."""

import functools
import json
import warnings

import numpy as np
import xgboost
from numpy import ndarray

from nfn_transformer.rms import root_mean_square
from nfn_transformer.trees.fitting import Observer, Settings, Sides
from nfn_transformer.trees.libraries import TreeLibrary
from nfn_transformer.trees.xgboost_json import checked_model

# XGBoost's sketch of the columns takes eleven times the data's own memory. Of more rows than these, some order
# statistics of each column, evenly spaced, are sketched instead: twice as many as there are bins.
SKETCH_ROWS = 2048
ORDER_STATISTICS = 512
_COLUMNS = 512


class XGBoostTrees:
    """Trees that XGBoost has fitted, as JSON."""

    def __init__(self, content: bytes):
        """Parse trees.

        Raises:
            ValueError: `content` is not XGBoost's JSON, or a node of it is not sound.
        """
        self.content = content
        checked, self._width = checked_model(content)
        self._booster = xgboost.Booster()
        try:
            self._booster.load_model(bytearray(checked))
        except xgboost.core.XGBoostError as error:
            raise ValueError(str(error).splitlines()[0]) from None

    @property
    def trees(self) -> int:
        """Number of trees."""
        return self._booster.num_boosted_rounds()

    def predict(self, inputs: ndarray) -> ndarray:
        """Predict the labels [n] of n networks from their features [n, numbers].

        Raises:
            ValueError: the trees read other numbers.
        """
        if inputs.shape[1] != self._width:
            raise ValueError(f"networks of {inputs.shape[1]} numbers, the trees read {self._width}")
        return self._booster.inplace_predict(inputs)


@functools.cache
def xgboost_device(device: str) -> tuple[str, str | None]:
    """Return the device that XGBoost trains on in place of `device`, and the reason if it differs."""
    if device == "cpu":
        return device, None
    inputs = np.arange(8, dtype=np.float32)[:, None]
    data = xgboost.DMatrix(inputs, inputs[:, 0])
    try:
        # It may have CUDA and yet find no GPU that it can use; then it warns, and goes on without.
        with warnings.catch_warnings(action="ignore"):
            booster = xgboost.train({"device": device, "verbosity": 0}, data, 1)
        used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    except xgboost.core.XGBoostError:
        used = "cpu"
    return ("cpu", "XGBoost finds no GPU that it can use") if used == "cpu" else (device, None)


def fit_xgboost(settings: Settings, sides: Sides, observer: Observer) -> XGBoostTrees:
    """Train round after round, and return the trees of the best round as they were then."""
    parameters = {
        **settings.config.parameters,
        "seed": settings.seed,
        "nthread": settings.threads,
        "device": settings.device,
        "verbosity": 1,
    }
    train = _quantized(sides.train, sides.train_labels, settings.threads)
    del sides.train
    validation = xgboost.QuantileDMatrix(sides.validation, sides.validation_labels, ref=train, nthread=settings.threads)
    del sides.validation
    follower = _Follower(validation, observer)
    xgboost.train(
        parameters,
        train,
        settings.boosting.rounds,
        evals=[(train, "train"), (validation, "validation")],
        custom_metric=follower.see_predictions,
        callbacks=[follower],
        verbose_eval=False,
    )
    return XGBoostTrees(follower.best)


def _quantized(inputs: ndarray, labels: ndarray, threads: int) -> xgboost.QuantileDMatrix:
    if len(inputs) <= SKETCH_ROWS:
        return xgboost.QuantileDMatrix(inputs, labels, nthread=threads)
    ranks = np.linspace(0, len(inputs) - 1, ORDER_STATISTICS).round().astype(int)
    statistics = np.empty((ORDER_STATISTICS, inputs.shape[1]), inputs.dtype)
    for start in range(0, inputs.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        statistics[:, columns] = np.sort(inputs[:, columns], axis=0)[ranks]
    sketched = xgboost.QuantileDMatrix(statistics, nthread=threads)
    return xgboost.QuantileDMatrix(inputs, labels, ref=sketched, nthread=threads)


class _Follower(xgboost.callback.TrainingCallback):
    """Callback that hands each round to the observer, and keeps the model of the best one.

    The copy is needed: a later round of dart changes the weights of earlier trees.
    """

    def __init__(self, validation: xgboost.QuantileDMatrix, observer: Observer):
        self.best = b""
        self._validation, self._observer = validation, observer
        self._train_loss, self._predictions = 0.0, np.empty(0)

    def see_predictions(self, predictions: ndarray, data: xgboost.QuantileDMatrix) -> tuple[str, float]:
        """Take the predictions that XGBoost shows to a metric of each side."""
        if data is self._validation:
            self._predictions = predictions.copy()
        else:
            self._train_loss = root_mean_square(predictions - data.get_label())
        return "seen", 0.0

    def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: dict) -> bool:
        """End a round; True stops the training."""
        is_best, is_last = self._observer.finish_round(self._train_loss, self._predictions)
        if is_best:
            self.best = bytes(model.save_raw("json"))
        return is_last


LIBRARY = TreeLibrary("best.xgboost.json", fit_xgboost, XGBoostTrees, xgboost_device)
