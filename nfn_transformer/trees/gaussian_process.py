"""Gaussian process regression by scikit-learn, kept as plain arrays (Rasmussen and Williams 2006, equation 2.25).

The kernel is one squared exponential, and noise. Features are made alike before: each is scaled, or replaced by its
rank among the networks seen. Features that stand together are of one kind and share a length scale. So the kinds that
tell more weigh more (automatic relevance determination, section 5.1 there).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy import ndarray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

Arrays = Mapping[str, ndarray]

# A feature that hardly deviates tells nothing, and one outlier must not be all that a distance sees.
_LEAST_DEVIATION, _CUT = 1e-4, 4.0
_QUANTILES = 200
# The kernel's parameters are found on so many networks, in cubic time.
_TO_TUNE, _MOST_NETWORKS = 500, 5000
_ROWS_AT_ONCE = 1024
# Parts of the features with a length scale each. A normal prior keeps their logarithms near each other: few networks
# do not tell so many apart. Its precision is twice the second number.
_PARTS, _CLOSENESS = 32, 2.0
# Of variances and length scales, as in scikit-learn.
_BOUNDS = (1e-5, 1e5)
_DIMS = {"seen": 2, "coefficients": 1, "offset": 0}


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
    parts = np.array_split(np.arange(inputs.shape[1]), min(_PARTS, inputs.shape[1]))
    some = seen[:_TO_TUNE]
    squares = np.stack([cdist(some[:, part], some[:, part], "sqeuclidean") for part in parts])
    start = np.log([1.0, *np.ones(len(parts)), 0.1])
    bounds = np.log([_BOUNDS] * len(start))
    objective = partial(negative_log_likelihood, squares=squares, targets=targets[:_TO_TUNE])
    signal, *lengths, noise = np.exp(most_probable(objective, start, bounds)[0])
    length = np.repeat(lengths, [len(part) for part in parts])
    kernel = ConstantKernel(signal) * RBF(1.0) + WhiteKernel(noise)
    process = GaussianProcessRegressor(kernel, optimizer=None, copy_X_train=False).fit(seen / length, targets)
    return {
        "seen": seen,
        "coefficients": process.alpha_ * signal * size,
        "offset": np.array(offset),
        "length": length,
    }


def negative_log_likelihood(logarithms: ndarray, squares: ndarray, targets: ndarray) -> tuple[float, ndarray]:
    """Return the negative log marginal likelihood of a kernel's parameters and its gradient (equations 2.30 and 5.9).

    Scikit-learn's takes 18 times as long: it finds the distances anew each time, and holds each derivative [n, n].

    Args:
        logarithms: of the signal's variance, the length scales and the noise's variance.
        squares: squared distances [parts, n, n] of the networks by each part of their features.
        targets: numbers [n].
    """
    precisions, identity = np.exp(-2 * logarithms[1:-1]), np.eye(len(targets))
    kernel = np.exp(logarithms[0] - 0.5 * np.tensordot(precisions, squares, 1))
    noise = np.exp(logarithms[-1])
    factor = cho_factor(kernel + noise * identity, lower=True)
    inverse = cho_solve(factor, identity)
    coefficients = inverse @ targets
    value = targets @ coefficients / 2 + np.log(factor[0].diagonal()).sum() + len(targets) * math.log(2 * math.pi) / 2
    by_kernel = (inverse - np.outer(coefficients, coefficients)) / 2
    weighted = by_kernel * kernel
    gradient = [weighted.sum(), *precisions * np.tensordot(squares, weighted, 2), noise * by_kernel.trace()]
    return value, np.array(gradient)


def most_probable(
    objective: Callable[[ndarray], tuple[float, ndarray]], start: ndarray, bounds: ndarray
) -> tuple[ndarray, float]:
    """Return the logarithms of a kernel's parameters that are most probable a posteriori, and their objective.

    Args:
        objective: negative log likelihood of the logarithms, and its gradient.
        start: logarithms of the signal's variance, the length scales and the noise's variance.
        bounds: least and most of each [parameters, 2].
    """

    def with_prior(parameters: ndarray) -> tuple[float, ndarray]:
        value, gradient = objective(parameters)
        deviations = parameters[1:-1] - parameters[1:-1].mean()
        of_prior = np.pad(2 * _CLOSENESS * deviations, 1)
        return value + _CLOSENESS * deviations @ deviations, gradient + of_prior

    found = minimize(with_prior, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x, found.fun


def check_process(arrays: Arrays, numbers: int) -> None:
    """Raise ValueError unless arrays are what `fit_process` returns for so many features."""
    # Processes of earlier versions have one length scale.
    _check_arrays(arrays, {**_DIMS, "length": min(1, np.ndim(arrays.get("length", 0)))})
    if arrays["seen"].shape != (len(arrays["coefficients"]), numbers):
        expected = f"expected {(len(arrays['coefficients']), numbers)}"
        raise ValueError(f"'seen' has shape {arrays['seen'].shape}, {expected}")
    if arrays["length"].size not in (1, numbers) or (arrays["length"] <= 0).any():
        raise ValueError(f"'length' is not positive, or not of {numbers} features")


def predict_process(inputs: ndarray, arrays: Arrays) -> ndarray:
    """Return the predicted numbers [n], float64, for features [n, numbers] that are made alike."""
    seen, parts = arrays["seen"], [np.zeros(0)]
    precisions = np.broadcast_to(arrays["length"] ** -2.0, seen.shape[1:])
    of_seen = seen**2 @ precisions
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        own = inputs[start : start + _ROWS_AT_ONCE]
        squares = (own**2 @ precisions)[:, None] + of_seen - 2 * (own * precisions) @ seen.T
        parts.append(np.exp(-0.5 * np.maximum(squares, 0)) @ arrays["coefficients"])
    return np.concatenate(parts) + arrays["offset"]


def _check_arrays(arrays: Arrays, dims: Mapping[str, int]) -> None:
    if arrays.keys() != dims.keys():
        raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(sorted(dims))}")
    for name, count in dims.items():
        if arrays[name].dtype != np.float64 or arrays[name].ndim != count or not np.isfinite(arrays[name]).all():
            raise ValueError(f"'{name}' is no finite float64 array of {count} dimensions")
