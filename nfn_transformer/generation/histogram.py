"""A histogram of a zoo's accuracies, as a picture."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from torch import Tensor

from nfn_transformer.atomic_files import replacing


def save_histogram(accuracies: Tensor, title: str, path: Path) -> None:
    """Write a PNG with the histogram of accuracies [n] in [0, 1]."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(accuracies.tolist(), bins=40, range=(0, 1), color="#4878a8", edgecolor="white", linewidth=0.4)
    axes.set(xlabel="test accuracy", ylabel="networks", title=title, xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "nfn"}):
        figure.savefig(temporary, format="png", dpi=130)
