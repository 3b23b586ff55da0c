"""Blend: the mean of extremely randomised trees and of two Gaussian processes that read the same features.

Trees see thresholds, processes see distances, one between scaled features and one between ranks. Their errors differ,
so that the mean ranks better than each.
"""

from typing import Self

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nfn_transformer.rms import root_mean_square
from nfn_transformer.trees.extra_trees import ExtraTrees, extra_trees_device, grow_trees
from nfn_transformer.trees.fitting import Observer, Settings, Sides
from nfn_transformer.trees.gaussian_process import (
    Arrays,
    check_process,
    check_scales,
    fit_process,
    fit_scales,
    predict_process,
    ranked,
    scaled,
)
from nfn_transformer.trees.libraries import TreeLibrary

# Accuracies of 0 and 1 have no logits; these bounds are those of a test of 200 samples.
_LEAST, _MOST = 0.005, 0.995

_PROCESSES = {"scaled": scaled, "ranked": ranked}


class Blend:
    """Forest and processes, which keep the features of up to 5,000 networks each."""

    def __init__(self, arrays: Arrays):
        """Take the arrays of a blend's file as they are, without copies.

        Raises:
            ValueError: they are no blend's.
        """
        self._arrays = arrays
        try:
            self._forest = ExtraTrees(arrays["forest"].tobytes())
            self._of_logits = bool(arrays["of_logits"][0])
            parts: dict[str, dict[str, ndarray]] = {name: {} for name in ("scales", *_PROCESSES)}
            for name in arrays.keys() - {"forest", "of_logits"}:
                part, own = name.split(".")
                parts[part][own] = arrays[name]
            self._scales: Arrays = parts.pop("scales")
            check_scales(self._scales)
            for process in parts.values():
                check_process(process, len(self._scales["mean"]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"no blend: {error}") from None
        self._processes = parts

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Return the blend in a file's content.

        Raises:
            ValueError: `content` is not that of a blend's file.
        """
        try:
            return cls(load(content))
        except SafetensorError as error:
            raise ValueError(f"no blend: {error}") from None

    @property
    def content(self) -> bytes:
        """Return the content of the blend's file, which is safetensors; it is made anew and not kept."""
        return save(dict(self._arrays))

    @property
    def trees(self) -> int:
        """Number of trees."""
        return self._forest.trees

    def predict(self, inputs: ndarray) -> ndarray:
        """Predict the labels [n], float64, of n networks from their features [n, numbers].

        Raises:
            ValueError: the blend reads another count of numbers than there are.
        """
        if inputs.shape[1] != len(self._scales["mean"]):
            raise ValueError(f"networks of {inputs.shape[1]} numbers, the blend reads {len(self._scales['mean'])}")
        distances = [
            predict_process(alike(inputs, self._scales), self._processes[name]) for name, alike in _PROCESSES.items()
        ]
        mean = (self._forest.predict(inputs) + np.mean(distances, axis=0)) / 2
        return 1 / (1 + np.exp(-mean)) if self._of_logits else mean


def fit_blend(settings: Settings, sides: Sides, observer: Observer) -> Blend:
    """Fit forest and processes in one round; accuracies are learned as logits."""
    targets = np.asarray(sides.train_labels, dtype=np.float64)
    if settings.of_shares:
        targets = np.clip(targets, _LEAST, _MOST)
        targets = np.log(targets / (1 - targets))
    scales = fit_scales(sides.train)
    parts = {"scales": scales}
    for name, alike in _PROCESSES.items():
        parts[name] = fit_process(alike(sides.train, scales), targets, settings.seed)
    arrays = {f"{part}.{name}": array for part, own in parts.items() for name, array in own.items()}
    forest = grow_trees(settings, sides.train, targets)
    arrays["forest"] = np.frombuffer(forest.content, dtype=np.uint8)
    arrays["of_logits"] = np.array([settings.of_shares], dtype=np.uint8)
    blend = Blend(arrays)
    loss = root_mean_square(blend.predict(sides.train) - sides.train_labels)
    observer.finish_round(loss, blend.predict(sides.validation))
    del sides.train, sides.validation
    return blend


LIBRARY = TreeLibrary("best.blend.safetensors", fit_blend, Blend.parse, extra_trees_device)
