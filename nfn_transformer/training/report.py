"""The end of a run: the best predictor reloaded, the test side opened once, and everything written down."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from nfn_transformer.atomic_files import write_csv
from nfn_transformer.errors import RunError
from nfn_transformer.figures import new_figure, optional_picture, save_png
from nfn_transformer.printable import printable, printable_message
from nfn_transformer.training.data import RunData
from nfn_transformer.training.history import History
from nfn_transformer.training.metrics import Metrics, TauInterval, tau_interval
from nfn_transformer.training.results import FINISHED, few_networks
from nfn_transformer.training.run_directory import RunDirectory, read_json, write_json
from nfn_transformer.training.trained_predictor import TrainedPredictor
from nfn_transformer.zoo.runs import TEST, TRAIN, VALIDATION

SEEN = "test_networks_seen_in_training"
"""Entry of results.json where some test networks have the weights of networks on other sides."""


def evaluate_best(
    data: RunData, history: History, predictor: TrainedPredictor, directory: RunDirectory, seed: int
) -> Metrics:
    """Test the best epoch or round, once; write predictions, plot and results; return the test metrics.

    Args:
        data: whose test side is read.
        history: with at least one epoch or round.
        predictor: as it was then.
        directory: for all files.
        seed: of the bootstrap interval.
    """
    index, split, best = data.split.test, data.split, history.best
    if best is None:
        raise ValueError("no epoch or round is finished")
    outputs = predictor.outputs(data.zoo, index)
    labels, predicted = data.zoo.labels[index].cpu(), predictor.accuracies(outputs)
    test = predictor.measure(outputs, labels)
    interval = tau_interval(predicted, labels, [data.zoo.runs[i] for i in index.tolist()], seed)
    names = [data.zoo.names[i] for i in index.tolist()]
    seen = _seen_in_training(data.record)
    sides = [seen.get(name, "") for name in names]
    write_predictions(directory.predictions_file, names, predicted, labels, sides)
    results = {
        "status": history.diverged or FINISHED,
        f"best_{history.unit}": best.number,
        f"{history.unit}s": len(history.records),
        **predictor.size,
        "networks": {"train": len(split.train), "validation": len(split.validation), "test": len(index)},
        "validation": asdict(best.validation),
        "test": asdict(test),
        "test_tau_interval": asdict(interval),
        **({SEEN: sum(map(bool, sides))} if any(sides) else {}),
    }
    write_json(directory.results_file, results)
    _plot_predictions(directory.scatter_file, labels, predicted, f"test: tau {test.tau:.3f}, {len(index)} networks")
    _plot_history(directory.curves_file, history)
    directory.state_file.unlink(missing_ok=True)  # until then --resume draws what a kill has kept from being drawn
    return test


def _seen_in_training(record: dict) -> dict[str, str]:
    """Return name -> side of the test networks whose weights another side holds as well."""
    others = {known[2]: side for side in (VALIDATION, TRAIN) for known in record["networks"][side]}
    tested = zip(record[TEST], record["networks"][TEST], strict=True)
    return {name: others[known[2]] for name, known in tested if known[2] in others}


def write_predictions(
    path: Path, names: Sequence[str], predicted: Tensor, labels: Tensor | None = None, sides: Sequence[str] = ()
) -> None:
    """Write a CSV with the columns file and predicted, where `labels` are known accuracy, and where one is, side.

    `sides` tells which networks the predictor was trained on, or selected by.
    """
    header, columns = ["file", "predicted"], [names, predicted.tolist()]
    if labels is not None:
        header, columns = [*header, "accuracy"], [*columns, labels.tolist()]
    if any(sides):
        header, columns = [*header, "side"], [*columns, sides]
    write_csv(path, header, [list(row) for row in zip(*columns, strict=True)])


@optional_picture()
def _plot_predictions(path: Path, labels: Tensor, predictions: Tensor, title: str) -> None:
    """Write a scatter plot (PNG) of predicted against true accuracy, both [n] in [0, 1]."""
    figure = new_figure(5, 5, layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=1)
    axes.scatter(labels.tolist(), predictions.tolist(), s=12, alpha=0.6, linewidths=0, zorder=2)
    axes.set_xlabel("true test accuracy")
    axes.set_ylabel("predicted accuracy")
    axes.set_title(title)
    save_png(figure, path)


@optional_picture()
def _plot_history(path: Path, history: History) -> None:
    """Write learning curves (PNG): losses and the validation tau of each epoch or round, and which one is the best."""
    figure, records, best = new_figure(6, 5), history.records, history.best
    losses, taus = figure.subplots(2, sharex=True)
    numbers = [record.number for record in records]
    marker = "." if len(records) == 1 else ""  # one point is no line
    losses.plot(numbers, [record.train_loss for record in records], marker=marker, label="training")
    losses.plot(numbers, [record.validation.loss for record in records], marker=marker, label="validation")
    losses.set_ylabel("loss" if history.unit == "epoch" else "root mean squared error")
    taus.plot(numbers, [record.validation.tau for record in records], marker=marker, color="tab:orange")
    taus.set_ylabel("validation tau")
    taus.set_xlabel(history.unit)
    taus.xaxis.get_major_locator().set_params(integer=True)
    for axes in (losses, taus):
        axes.grid(color="0.9")
        if best is not None:
            axes.axvline(best.number, color="0.5", linestyle=":", label=f"best {history.unit}: {best.number}")
    losses.legend(frameon=False)
    save_png(figure, path, dpi=100)


def read_summary(directory: RunDirectory) -> tuple[str, str]:
    """Return a finished run's results as lines for the screen, and its status: FINISHED, or why it stopped.

    Raises:
        RunError: the results are damaged.
    """
    results = read_json(directory.results_file)
    try:
        test, validation = (Metrics(**_with_nan(results[side])) for side in ("test", "validation"))
        interval = results.get("test_tau_interval")  # runs of earlier versions have none
        unit = "epoch" if "epochs" in results else "round"
        text = (
            f"best {unit} {results[f'best_{unit}']} of {results[f'{unit}s']}: validation tau {validation.tau:.4f}\n"
            f"test {metrics_line(test, interval and TauInterval(**_with_nan(interval)))}  "
            f"({results['networks']['test']} networks{few_networks(results['networks']['test'])})"
        )
        if count := results.get(SEEN):
            text += (
                f"\nwarning: {count} of the test networks have weights that the predictor was trained on or selected by"
            )
        return printable_message(text), printable(str(results["status"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{directory.results_file}: is not what a finished run writes: {error!r}") from None


def _with_nan(values: dict) -> dict:
    """Return numbers of JSON, which has no nan: null stands for it."""
    return {name: math.nan if value is None else value + 0 for name, value in values.items()}


def metrics_line(metrics: Metrics, interval: TauInterval | None) -> str:
    """Return metrics as a line for the screen; an undefined tau is nan, with a warning."""
    between = "" if interval is None or math.isnan(interval.low) else f" {interval}"
    line = f"tau {metrics.tau:.4f}{between}  R2 {metrics.r2:.4f}  MAE {metrics.mae:.4f}  loss {metrics.loss:.4f}"
    if math.isnan(metrics.tau):
        line += "  (warning: tau is undefined where all predictions, or all accuracies, are equal)"
    return line
