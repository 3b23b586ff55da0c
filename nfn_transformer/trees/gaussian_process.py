"""Gaussian process regression by scikit-learn, kept as plain arrays (Rasmussen and Williams 2006, equation 2.25).

The kernel is one squared exponential, and noise. Features are made alike before: each is scaled, or replaced by its
rank among the networks seen.
"""

import math
import warnings
from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

Arrays = Mapping[str, ndarray]

# A feature that hardly deviates tells nothing, and one outlier must not be all that a distance sees.
_LEAST_DEVIATION, _CUT = 1e-4, 4.0
_QUANTILES = 200
# The kernel's parameters are found on so many networks, in cubic time.
_TO_TUNE, _MOST_NETWORKS = 500, 5000
_ROWS_AT_ONCE = 1024
_DIMS = {"seen": 2, "coefficients": 1, "offset": 0, "length": 0}


def fit_scales(inputs: ndarray) -> dict[str, ndarray]:
    """Return mean, scale and quantiles of features [n, numbers]; the scale of features that hardly deviate is 0."""
    inputs = inputs.astype(np.float64)
    deviation = inputs.std(0)
    varies = deviation > _LEAST_DEVIATION * np.sqrt((inputs**2).mean(0))
    # Squares of a network's features then sum to about 1.
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0) / math.sqrt(max(1, int(varies.sum())))
    quantiles = np.quantile(inputs, np.linspace(0, 1, min(_QUANTILES, len(inputs))), axis=0)
    return {"mean": inputs.mean(0), "scale": scale, "quantiles": quantiles}


def check_scales(arrays: Arrays) -> None:
    """Raise ValueError unless arrays are what `fit_scales` returns."""
    _check_arrays(arrays, {"mean": 1, "scale": 1, "quantiles": 2})
    numbers = len(arrays["mean"])
    if len(arrays["scale"]) != numbers or arrays["quantiles"].shape[1] != numbers or not len(arrays["quantiles"]):
        raise ValueError("mean, scale and quantiles are of different counts of features")
    if (np.diff(arrays["quantiles"], axis=0) < 0).any():
        raise ValueError("'quantiles' fall")


def scaled(inputs: ndarray, scales: Arrays) -> ndarray:
    """Return features [n, numbers] with mean 0 and like deviations, cut off at 4 of them."""
    most = _CUT / math.sqrt(max(1, int(np.count_nonzero(scales["scale"]))))
    return ((inputs.astype(np.float64) - scales["mean"]) * scales["scale"]).clip(-most, most)


def ranked(inputs: ndarray, scales: Arrays) -> ndarray:
    """Return ranks of features [n, numbers], with mean 0 and like deviations; equal features have their mean rank."""
    quantiles, varies = scales["quantiles"], scales["scale"] > 0
    ranks, result = np.linspace(0, 1, len(quantiles)), np.zeros(inputs.shape)
    for column in varies.nonzero()[0]:
        own, of_column = inputs[:, column].astype(np.float64), quantiles[:, column]
        highest, lowest = np.interp(own, of_column, ranks), np.interp(-own, -of_column[::-1], -ranks[::-1])
        result[:, column] = (highest - lowest) / 2 - 0.5
    return result * math.sqrt(12 / max(1, int(varies.sum())))


def fit_process(inputs: ndarray, targets: ndarray, seed: int) -> dict[str, ndarray]:
    """Return the arrays of a process that is fitted to networks; of more than 5,000 a random part counts.

    Args:
        inputs: features [n, numbers] that are made alike.
        targets: numbers [n].
        seed: of the networks that the kernel's parameters are found on.
    """
    order = np.random.default_rng(seed).permutation(len(inputs))[:_MOST_NETWORKS]
    seen, targets = inputs[order], targets[order].astype(np.float64)
    offset, size = targets.mean(), targets.std() or 1.0
    targets = (targets - offset) / size
    kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1)
    with warnings.catch_warnings():  # a parameter at its bound is as good as any beyond
        warnings.simplefilter("ignore", ConvergenceWarning)
        tuned = GaussianProcessRegressor(kernel).fit(seen[:_TO_TUNE], targets[:_TO_TUNE])
    process = GaussianProcessRegressor(tuned.kernel_, optimizer=None, copy_X_train=False).fit(seen, targets)
    signal = process.kernel_.k1
    return {
        "seen": seen,
        "coefficients": process.alpha_ * signal.k1.constant_value * size,
        "offset": np.array(offset),
        "length": np.array(float(signal.k2.length_scale)),
    }


def check_process(arrays: Arrays, numbers: int) -> None:
    """Raise ValueError unless arrays are what `fit_process` returns for so many features."""
    _check_arrays(arrays, _DIMS)
    if arrays["seen"].shape != (len(arrays["coefficients"]), numbers):
        expected = f"expected {(len(arrays['coefficients']), numbers)}"
        raise ValueError(f"'seen' has shape {arrays['seen'].shape}, {expected}")
    if arrays["length"] <= 0:
        raise ValueError("'length' is not positive")


def predict_process(inputs: ndarray, arrays: Arrays) -> ndarray:
    """Return the predicted numbers [n], float64, for features [n, numbers] that are made alike."""
    seen, parts = arrays["seen"], [np.zeros(0)]
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        own = inputs[start : start + _ROWS_AT_ONCE]
        squares = (own**2).sum(1)[:, None] + (seen**2).sum(1) - 2 * own @ seen.T
        parts.append(np.exp(-0.5 * np.maximum(squares, 0) / arrays["length"] ** 2) @ arrays["coefficients"])
    return np.concatenate(parts) + arrays["offset"]


def _check_arrays(arrays: Arrays, dims: Mapping[str, int]) -> None:
    if arrays.keys() != dims.keys():
        raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(sorted(dims))}")
    for name, count in dims.items():
        if arrays[name].dtype != np.float64 or arrays[name].ndim != count or not np.isfinite(arrays[name]).all():
            raise ValueError(f"'{name}' is no finite float64 array of {count} dimensions")
