"""Histogram of a zoo's accuracies."""

from pathlib import Path

from torch import Tensor

from nfn_transformer.figures import new_figure, optional_picture, save_png


def histogram_path(out: Path) -> Path:
    """Return NAME_accuracies.png beside a zoo NAME or NAME.zip.

    Where both zoos are there and the other one has that picture, the kind of this one is part of the name.
    """
    name = out.name.removesuffix(".zip")
    kind, other = ("folder", f"{name}.zip") if name == out.name else ("zip", name)
    picture = out.with_name(f"{name}_accuracies.png")
    is_taken = picture.exists() and out.with_name(other).exists()
    return out.with_name(f"{name}_{kind}_accuracies.png") if is_taken else picture


@optional_picture()
def save_histogram(accuracies: Tensor, title: str, path: Path) -> None:
    """Write a PNG with the histogram of accuracies [n] in [0, 1]."""
    figure = new_figure(6, 3.2, layout="constrained")
    axes = figure.subplots()
    axes.hist(accuracies.tolist(), bins=40, range=(0, 1), color="#4878a8", edgecolor="white", linewidth=0.4)
    axes.set(xlabel="test accuracy", ylabel="networks", title=title, xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=130)
