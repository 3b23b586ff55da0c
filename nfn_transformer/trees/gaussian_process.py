"""Gaussian process regression by scikit-learn, kept as plain arrays (Rasmussen and Williams 2006, equation 2.25).

The kernel is one squared exponential, and noise. A process knows few networks better than trees do.
"""

import math
import warnings
from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

ARRAYS = {"mean": 1, "scale": 1, "seen": 2, "coefficients": 2, "offset": 1, "length": 1}
"""Names of a process' arrays, all float64, and their numbers of dimensions."""

# A column that hardly deviates tells nothing, and one outlier must not be all that a distance sees.
_LEAST_DEVIATION, _CUT = 1e-4, 4.0
# The kernel's parameters are found on so many networks, in cubic time.
_TO_TUNE, _MOST_NETWORKS = 500, 5000
_ROWS_AT_ONCE = 1024


def fit_process(inputs: ndarray, targets: ndarray, seed: int) -> dict[str, ndarray]:
    """Return the arrays of a process that is fitted to networks; of more than 5,000 a random part counts.

    Args:
        inputs: features [n, numbers].
        targets: numbers [n], or several [n, outputs].
        seed: of the networks that the kernel's parameters are found on.
    """
    order = np.random.default_rng(seed).permutation(len(inputs))[:_MOST_NETWORKS]
    inputs, targets = inputs[order].astype(np.float64), targets[order].reshape(len(order), -1)
    mean, deviation = inputs.mean(0), inputs.std(0)
    varies = deviation > _LEAST_DEVIATION * np.sqrt((inputs**2).mean(0))
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0) / math.sqrt(max(1, int(varies.sum())))
    arrays = {"mean": mean, "scale": scale}
    seen, offset = _scaled(inputs, arrays), targets.mean(0)
    size = targets.std(0) + (targets.std(0) == 0)
    kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1)
    with warnings.catch_warnings():  # a parameter at its bound is as good as any beyond
        warnings.simplefilter("ignore", ConvergenceWarning)
        tuned = GaussianProcessRegressor(kernel).fit(seen[:_TO_TUNE], ((targets - offset) / size)[:_TO_TUNE])
    process = GaussianProcessRegressor(tuned.kernel_, optimizer=None).fit(seen, (targets - offset) / size)
    signal = process.kernel_.k1
    coefficients = process.alpha_.reshape(len(seen), -1) * signal.k1.constant_value * size
    length = np.array([signal.k2.length_scale])
    return {**arrays, "seen": seen, "coefficients": coefficients, "offset": offset, "length": length}


def predict_process(inputs: ndarray, arrays: Mapping[str, ndarray]) -> ndarray:
    """Return the predicted numbers [n, outputs], float64, for features [n, numbers]."""
    parts = []
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        own = _scaled(inputs[start : start + _ROWS_AT_ONCE].astype(np.float64), arrays)
        seen = arrays["seen"]
        squares = (own**2).sum(1)[:, None] + (seen**2).sum(1) - 2 * own @ seen.T
        parts.append(np.exp(-0.5 * np.maximum(squares, 0) / arrays["length"] ** 2) @ arrays["coefficients"])
    return np.concatenate(parts or [np.zeros((0, len(arrays["offset"])))]) + arrays["offset"]


def check_process(arrays: Mapping[str, ndarray]) -> None:
    """Raise ValueError unless arrays are those of a process."""
    if arrays.keys() != ARRAYS.keys():
        raise ValueError(f"a process of {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(sorted(ARRAYS))}")
    for name, dims in ARRAYS.items():
        if arrays[name].dtype != np.float64 or arrays[name].ndim != dims or not np.isfinite(arrays[name]).all():
            raise ValueError(f"'{name}' is no finite float64 array of {dims} dimensions")
    networks, numbers = arrays["seen"].shape
    shapes = {"mean": (numbers,), "scale": (numbers,), "length": (1,)}
    shapes |= {"coefficients": (networks, *arrays["offset"].shape)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"'{name}' has shape {arrays[name].shape}, expected {shape}")
    if arrays["length"][0] <= 0:
        raise ValueError("'length' is not positive")


def _scaled(inputs: ndarray, arrays: Mapping[str, ndarray]) -> ndarray:
    """Return features cut off at 4 deviations of the networks seen, so that their squares sum to about 1."""
    scale = arrays["scale"]
    most = _CUT / math.sqrt(max(1, int(np.count_nonzero(scale))))
    return ((inputs - arrays["mean"]) * scale).clip(-most, most)
