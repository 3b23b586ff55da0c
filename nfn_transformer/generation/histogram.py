"""Histogram of a zoo's accuracies."""

from pathlib import Path

from torch import Tensor

from nfn_transformer.figures import new_figure, optional_picture, save_png


@optional_picture()
def save_histogram(accuracies: Tensor, title: str, path: Path) -> None:
    """Write a PNG with the histogram of accuracies [n] in [0, 1]."""
    figure = new_figure(6, 3.2, layout="constrained")
    axes = figure.subplots()
    axes.hist(accuracies.tolist(), bins=40, range=(0, 1), color="#4878a8", edgecolor="white", linewidth=0.4)
    axes.set(xlabel="test accuracy", ylabel="networks", title=title, xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=130)
