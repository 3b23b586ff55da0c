"""The end of a run: the best epoch reloaded, the test side opened once, and everything written down."""

from dataclasses import asdict

from nfn_transformer.experiments.data import RunData
from nfn_transformer.experiments.metrics import Metrics, measure
from nfn_transformer.experiments.plots import plot_predictions
from nfn_transformer.experiments.run_directory import RunDirectory, write_csv, write_json
from nfn_transformer.experiments.saved_predictor import load_predictor
from nfn_transformer.experiments.training import Progress, predict_logits


def evaluate_best(data: RunData, progress: Progress, run: RunDirectory) -> Metrics:
    """Test the best epoch's weights, once, and write predictions, plot and results.

    Returns the test metrics.

    Raises:
        RunError: no epoch was finished.
    """
    model, best_epoch = load_predictor(run.best_file)
    index = data.split.test
    logits = predict_logits(model.to(data.zoo.rows.device), data.zoo, index)
    labels, predictions = data.zoo.labels[index].cpu(), logits.double().sigmoid()
    test = measure(logits, labels)
    names = [data.zoo.names[i] for i in index.tolist()]
    rows = [list(row) for row in zip(names, labels.tolist(), predictions.tolist(), strict=True)]
    write_csv(run.predictions_file, ["file", "accuracy", "predicted"], rows)
    plot_predictions(run.scatter_file, labels, predictions, f"test: tau {test.tau:.3f}, {len(index)} networks")
    results = {
        "status": progress.diverged or "complete",
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


def summary(results: dict) -> str:
    """The results as two lines for the screen; an undefined tau is printed as nan."""
    test, validation = results["test"], results["validation"]
    lines = (
        f"best epoch {results['best_epoch']} of {results['epochs']}: validation tau {_number(validation['tau'])}\n"
        f"test tau {_number(test['tau'])}  R2 {_number(test['r2'])}  MAE {_number(test['mae'])}  "
        f"loss {_number(test['loss'])}  ({results['networks']['test']} networks)"
    )
    if None in (test["tau"], validation["tau"]):
        lines += "\nwarning: tau is undefined (nan) where all predictions, or all accuracies, are equal"
    return lines


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"
