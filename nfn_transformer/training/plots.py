"""Plots of a run."""

from pathlib import Path

from torch import Tensor

from nfn_transformer.figures import save_png


def plot_predictions(path: Path, labels: Tensor, predictions: Tensor, title: str) -> None:
    """Write a scatter plot (PNG) of predicted against true accuracy, both [n] in [0, 1]."""
    from matplotlib.figure import Figure  # half a second that commands without a plot need not pay

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=1)
    axes.scatter(labels.tolist(), predictions.tolist(), s=12, alpha=0.6, linewidths=0, zorder=2)
    axes.set_xlabel("true test accuracy")
    axes.set_ylabel("predicted accuracy")
    axes.set_title(title)
    save_png(figure, path)
