"""The end of a run: the best predictor reloaded, the test side opened once, and everything written down."""

import math
from dataclasses import asdict

from nfn_transformer.errors import RunError
from nfn_transformer.training.bootstrap import TauInterval, tau_interval
from nfn_transformer.training.data import RunData
from nfn_transformer.training.metrics import Metrics
from nfn_transformer.training.plots import plot_predictions
from nfn_transformer.training.predictions import write_predictions
from nfn_transformer.training.progress import Progress
from nfn_transformer.training.run_directory import RunDirectory, read_json, write_json
from nfn_transformer.training.trained_predictor import TrainedPredictor

COMPLETE = "complete"


def evaluate_best(data: RunData, progress: Progress, fitted: TrainedPredictor, run: RunDirectory, seed: int) -> Metrics:
    """Test the best epoch or round, once, and write predictions, plot and results.

    Args:
        data: whose test side is read.
        progress: of the training, with at least one epoch or round.
        fitted: the predictor as it was then.
        run: where everything goes.
        seed: of the bootstrap interval.

    Returns the test metrics.
    """
    index = data.split.test
    outputs = fitted.outputs(data.zoo, index)
    labels, predicted = data.zoo.labels[index].cpu(), fitted.accuracies(outputs)
    test = fitted.measure(outputs, labels)
    interval = tau_interval(predicted, labels, [data.zoo.runs[i] for i in index.tolist()], seed)
    write_predictions(run.predictions_file, [data.zoo.names[i] for i in index.tolist()], predicted, labels)
    plot_predictions(run.scatter_file, labels, predicted, f"test: tau {test.tau:.3f}, {len(index)} networks")
    results = {
        "status": progress.diverged or COMPLETE,
        f"best_{progress.unit}": progress.best.number,
        f"{progress.unit}s": len(progress.history),
        **fitted.size,
        "networks": {side: len(getattr(data.split, side)) for side in ("train", "validation", "test")},
        "validation": asdict(progress.best.validation),
        "test": asdict(test),
        "test_tau_interval": asdict(interval),
    }
    write_json(run.results_file, results)
    run.state_file.unlink(missing_ok=True)
    return test


def read_summary(run: RunDirectory) -> tuple[str, str]:
    """The results of a finished run as lines for the screen, and its status: COMPLETE, or why it stopped.

    Raises:
        RunError: the results are damaged.
    """
    results = read_json(run.results_file)
    try:
        test, validation = (_metrics(results[side]) for side in ("test", "validation"))
        interval = results.get("test_tau_interval")  # runs of earlier versions have none
        unit = "epoch" if "epochs" in results else "round"
        text = (
            f"best {unit} {results[f'best_{unit}']} of {results[f'{unit}s']}: validation tau {validation.tau:.4f}\n"
            f"test {metrics_line(test, interval and TauInterval(**_numbers(interval)))}  "
            f"({results['networks']['test']} networks)"
        )
        return text, results["status"]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.results_file}: is not what a finished run writes: {error!r}") from None


def _metrics(values: dict) -> Metrics:
    return Metrics(**_numbers(values))


def _numbers(values: dict) -> dict:
    """JSON has no nan: it is written as null."""
    return {name: math.nan if value is None else value + 0 for name, value in values.items()}


def metrics_line(metrics: Metrics, interval: TauInterval | None) -> str:
    """Metrics for the screen; an undefined tau is printed as nan, with a warning."""
    between = "" if interval is None or math.isnan(interval.low) else f" {interval}"
    line = f"tau {metrics.tau:.4f}{between}  R2 {metrics.r2:.4f}  MAE {metrics.mae:.4f}  loss {metrics.loss:.4f}"
    if math.isnan(metrics.tau):
        line += "  (warning: tau is undefined where all predictions, or all accuracies, are equal)"
    return line
