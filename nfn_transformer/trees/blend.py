"""Blend: the mean of extremely randomised trees and of a Gaussian process that read the same features.

Trees see thresholds, a process sees distances. Their errors differ, so that the mean ranks better than either.
"""

from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nfn_transformer.rms import root_mean_square
from nfn_transformer.trees.extra_trees import ExtraTrees, extra_trees_device, grow_trees
from nfn_transformer.trees.fitting import Observer, Settings, Sides
from nfn_transformer.trees.gaussian_process import check_process, fit_process, predict_process
from nfn_transformer.trees.libraries import TreeLibrary

# Accuracies of 0 and 1 have no logits; these bounds are those of a test of 200 samples.
_LEAST, _MOST = 0.005, 0.995


class Blend:
    """Forest and process as the content of a safetensors file."""

    def __init__(self, content: bytes):
        """Parse a blend.

        Raises:
            ValueError: `content` is not the content of a blend's file.
        """
        self.content = content
        try:
            arrays = load(content)
            self._forest = ExtraTrees(arrays.pop("forest").tobytes())
            self._of_logits = bool(arrays.pop("of_logits")[0])
        except (SafetensorError, KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"no blend: {error}") from None
        check_process(arrays)
        if len(arrays["offset"]) != 1:
            raise ValueError(f"a process of {len(arrays['offset'])} outputs, expected 1")
        self._process: Mapping[str, ndarray] = arrays

    @property
    def trees(self) -> int:
        """Number of trees."""
        return self._forest.trees

    def predict(self, inputs: ndarray) -> ndarray:
        """Predict the labels [n], float64, of n networks from their features [n, numbers].

        Raises:
            ValueError: the blend reads another count of numbers than there are.
        """
        if inputs.shape[1] != len(self._process["mean"]):
            raise ValueError(f"networks of {inputs.shape[1]} numbers, the blend reads {len(self._process['mean'])}")
        both = (self._forest.predict(inputs) + predict_process(inputs, self._process)[:, 0]) / 2
        return 1 / (1 + np.exp(-both)) if self._of_logits else both


def fit_blend(settings: Settings, sides: Sides, observer: Observer) -> Blend:
    """Fit forest and process in one round; accuracies are learned as logits."""
    targets = np.asarray(sides.train_labels, dtype=np.float64)
    if settings.of_shares:
        targets = np.clip(targets, _LEAST, _MOST)
        targets = np.log(targets / (1 - targets))
    forest = grow_trees(settings, sides.train, targets)
    arrays = fit_process(sides.train, targets, settings.seed)
    arrays["forest"] = np.frombuffer(forest.content, dtype=np.uint8)
    arrays["of_logits"] = np.array([settings.of_shares], dtype=np.uint8)
    blend = Blend(save(arrays))
    loss = root_mean_square(blend.predict(sides.train) - sides.train_labels)
    observer.finish_round(loss, blend.predict(sides.validation))
    del sides.train, sides.validation
    return blend


LIBRARY = TreeLibrary("best.blend.safetensors", fit_blend, Blend, extra_trees_device)
