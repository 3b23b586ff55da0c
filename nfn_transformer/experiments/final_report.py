"""The end of a run: the best epoch reloaded, the test side opened once, and everything written down."""

import math
from dataclasses import asdict

from nfn_transformer.errors import RunError
from nfn_transformer.experiments.data import RunData
from nfn_transformer.experiments.metrics import Metrics, measure
from nfn_transformer.experiments.plots import plot_predictions
from nfn_transformer.experiments.predictions import accuracies, predict_logits, write_predictions
from nfn_transformer.experiments.run_directory import RunDirectory, read_json, write_json
from nfn_transformer.experiments.saved_predictor import load_predictor
from nfn_transformer.experiments.training import Progress

COMPLETE = "complete"


def evaluate_best(data: RunData, progress: Progress, run: RunDirectory) -> Metrics:
    """Test the best epoch's weights, once, and write predictions, plot and results.

    Returns the test metrics.

    Raises:
        RunError: no epoch was finished.
    """
    model, best_epoch = load_predictor(run.best_file)
    index = data.split.test
    logits = predict_logits(model.to(data.zoo.rows.device), data.zoo, index)
    labels, predicted = data.zoo.labels[index].cpu(), accuracies(logits)
    test = measure(logits, labels)
    write_predictions(run.predictions_file, [data.zoo.names[i] for i in index.tolist()], predicted, labels)
    plot_predictions(run.scatter_file, labels, predicted, f"test: tau {test.tau:.3f}, {len(index)} networks")
    results = {
        "status": progress.diverged or COMPLETE,
        "best_epoch": best_epoch,
        "epochs": len(progress.history),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "networks": {side: len(getattr(data.split, side)) for side in ("train", "validation", "test")},
        "validation": asdict(progress.best.validation),
        "test": asdict(test),
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
        text = (
            f"best epoch {results['best_epoch']} of {results['epochs']}: validation tau {validation.tau:.4f}\n"
            f"test {metrics_line(test)}  ({results['networks']['test']} networks)"
        )
        return text, results["status"]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.results_file}: is not what a finished run writes: {error!r}") from None


def _metrics(values: dict) -> Metrics:
    return Metrics(**{name: math.nan if value is None else float(value) for name, value in values.items()})


def metrics_line(metrics: Metrics) -> str:
    """Metrics for the screen; an undefined tau is printed as nan, with a warning."""
    line = f"tau {metrics.tau:.4f}  R2 {metrics.r2:.4f}  MAE {metrics.mae:.4f}  loss {metrics.loss:.4f}"
    if math.isnan(metrics.tau):
        line += "  (warning: tau is undefined where all predictions, or all accuracies, are equal)"
    return line
