"""Root mean square, of errors among others."""

import numpy as np
from torch import Tensor


def root_mean_square(values: Tensor | np.ndarray) -> float:
    """Return the root mean square of values of any shape, by their own library and in their own precision."""
    mean = (values * values).mean()
    # The square roots of the two libraries may differ in the last bit.
    return float(mean.sqrt() if isinstance(mean, Tensor) else np.sqrt(mean))
