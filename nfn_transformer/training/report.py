"""The end of a run: the best predictor reloaded, the test side opened once, and everything written down."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from pkgutil import resolve_name

import torch
from torch import Tensor

from nfn_transformer.atomic_files import write_csv
from nfn_transformer.errors import RunError
from nfn_transformer.figures import new_figure, optional_picture, save_png
from nfn_transformer.models.consensus import Consensus
from nfn_transformer.models.consensus_tests import labels_of_tests
from nfn_transformer.printable import printable, printable_message
from nfn_transformer.training.config import RunConfig
from nfn_transformer.training.data import RunData
from nfn_transformer.training.history import History
from nfn_transformer.training.metrics import Interval
from nfn_transformer.training.results import FINISHED, few_networks
from nfn_transformer.training.run_directory import RunDirectory, read_json, write_json
from nfn_transformer.training.task import Measures
from nfn_transformer.training.tasks import TASKS, Score
from nfn_transformer.training.trained_predictor import TrainedPredictor
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.runs import TEST, TRAIN, VALIDATION
from nfn_transformer.zoo.several_sizes import MixedZoo

SEEN = "test_networks_seen_in_training"
"""Entry of results.json where some test networks have the weights of networks on other sides."""

# Of tau or of an accuracy: models that hardly learn predict means of their training sides, which order whole folds.
_DIFFERENCE_OF_LEVELS = 0.1


def evaluate_best(
    data: RunData,
    history: History,
    predictor: TrainedPredictor,
    directory: RunDirectory,
    seed: int,
    ceilings: Mapping[str, float] | None = None,
) -> Measures:
    """Test the best epoch or round, once; write predictions, pictures and results; return the test measures.

    Args:
        data: whose test side is read.
        history: with at least one epoch or round.
        predictor: as it was then.
        directory: for all files.
        seed: of the bootstrap interval.
        ceilings: name -> number of what scores are to be compared with, besides the task's.
    """
    index, split, best, task = data.split.test, data.split, history.best, predictor.task
    if best is None:
        raise ValueError("no epoch or round is finished")
    outputs, labels = predictor.outputs(data.zoo, index), data.zoo.labels[index].cpu()
    test, score = task.measure(outputs, labels), task.entry.score
    interval = task.interval(outputs, labels, [data.zoo.runs[i] for i in index.tolist()], seed)
    names = [data.zoo.names[i] for i in index.tolist()]
    seen = _seen_in_training(data.record)
    sides = [seen.get(name, "") for name in names]
    write_predictions(directory.predictions_file, names, task.columns(outputs, labels), sides)
    results = {
        "status": history.diverged or FINISHED,
        **({} if task.name == "accuracy" else {"task": task.name}),
        f"best_{history.unit}": best.number,
        f"{history.unit}s": len(history.records),
        **predictor.size,
        "networks": {"train": len(split.train), "validation": len(split.validation), "test": len(index)},
        "validation": asdict(best.validation),
        "test": asdict(test),
        f"test_{score.key}_interval": asdict(interval),
        "test_references": {**task.references(labels, data.zoo.labels[split.train]), **(ceilings or {})},
        **({SEEN: sum(map(bool, sides))} if any(sides) else {}),
    }
    write_json(directory.results_file, results)
    title = f"test: {score.name} {asdict(test)[score.key]:.3f}, {len(index)} networks"
    task.draw(directory.path, outputs, labels, title)
    consensus = predictor.consensus
    if consensus is not None and consensus.inputs.picture:
        _draw_consensus(directory.path / "consensus.png", consensus)
    elif consensus is not None and consensus.inputs.draw_texts:
        _write_texts(directory.path / "consensus.csv", consensus)
    _plot_history(directory.curves_file, history, score)
    directory.state_file.unlink(missing_ok=True)  # until then --resume draws what a kill has kept from being drawn
    return test


def measure_ceilings(config: RunConfig, zoo: Zoo | MixedZoo, index: Tensor) -> dict[str, float]:
    """Return the ceiling of sampling on the networks `index` [m] by its name; nothing without --ceiling_images."""
    if not config.ceiling_images:
        return {}
    from nfn_transformer.training.ceilings import sampling_ceiling  # which imports scikit-learn: seconds

    return sampling_ceiling(config, zoo, index)


@optional_picture()
def _draw_consensus(path: Path, consensus: Consensus) -> None:
    """Draw the pictures of each half, one below the other, as a PNG with a column for each class."""
    pictures = consensus.pictures()[:, :, 0]  # [halves, classes * pictures, height, width]
    by_class, width = pictures.unflatten(1, (consensus.inputs.classes, -1)), pictures.shape[-1]
    sheet = by_class.permute(0, 2, 3, 1, 4).reshape(-1, consensus.inputs.classes * width)
    figure = new_figure(6, 6 * sheet.shape[0] / sheet.shape[1] + 0.5, layout="constrained")
    axes = figure.add_subplot(title="pictures that good networks agree on")
    axes.imshow(sheet.tolist(), cmap="gray", vmin=-1, vmax=1)
    centres = [width * (place + 0.5) - 0.5 for place in range(consensus.inputs.classes)]
    axes.set_xticks(centres, [str(place) for place in range(consensus.inputs.classes)])
    axes.set_yticks([])
    axes.set_xlabel("class that they see")
    save_png(figure, path)


def _write_texts(path: Path, consensus: Consensus) -> None:
    """Write the texts of each half as a CSV: a word is its number, which is its row in the embedding."""
    labels = labels_of_tests(consensus.inputs, torch.device("cpu")).tolist()
    rows = [
        (half, label, " ".join(map(str, words)))
        for half, texts in enumerate(consensus.texts.tolist())
        for label, words in zip(labels, texts, strict=True)
    ]
    write_csv(path, ("half", "class", "words"), rows)


def _seen_in_training(record: dict) -> dict[str, str]:
    """Return name -> side of the test networks whose weights another side holds as well."""
    others = {known[2]: side for side in (VALIDATION, TRAIN) for known in record["networks"][side]}
    tested = zip(record[TEST], record["networks"][TEST], strict=True)
    return {name: others[known[2]] for name, known in tested if known[2] in others}


def write_predictions(
    path: Path, names: Sequence[str], columns: Mapping[str, Sequence], sides: Sequence[str] = ()
) -> None:
    """Write a CSV with the columns file, those of `Task.columns`, and side where one is known.

    `sides` tells which networks the predictor was trained on, or selected by.
    """
    columns = {"file": names, **columns, **({"side": sides} if any(sides) else {})}
    write_csv(path, list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


@optional_picture()
def _plot_history(path: Path, history: History, score: Score) -> None:
    """Write learning curves (PNG): losses and the validation score of each epoch or round, and the best one."""
    figure, records, best = new_figure(6, 5), history.records, history.best
    losses, scores = figure.subplots(2, sharex=True)
    numbers = [record.number for record in records]
    marker = "." if len(records) == 1 else ""  # one point is no line
    losses.plot(numbers, [record.train_loss for record in records], marker=marker, label="training")
    losses.plot(numbers, [record.validation.loss for record in records], marker=marker, label="validation")
    losses.set_ylabel("loss" if history.unit == "epoch" else "root mean squared error")
    values = [asdict(record.validation)[score.key] for record in records]
    scores.plot(numbers, values, marker=marker, color="tab:orange")
    scores.set_ylabel(f"validation {score.key}")
    scores.set_xlabel(history.unit)
    scores.xaxis.get_major_locator().set_params(integer=True)
    for axes in (losses, scores):
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
        entry = TASKS[results.get("task", "accuracy")]
        test = resolve_name(entry.build).measures(**_with_nan(results["test"]))
        validation, score = _with_nan(results["validation"])[entry.score.key], entry.score.key
        test_score = asdict(test)[score]
        interval = results.get(f"test_{score}_interval")  # runs of earlier versions have none
        unit = "epoch" if "epochs" in results else "round"
        best, tested = f"best {unit}", "test"
        if count := results.get("folds"):
            best, tested = f"median best {unit} of {count} folds", "out of fold"
        text = (
            f"{best} {results[f'best_{unit}']} of {results[f'{unit}s']}: validation {score} {validation:.4f}\n"
            f"{tested} {test.line(interval and Interval(**_with_nan(interval)))}  "
            f"({results['networks']['test']} networks{few_networks(results['networks']['test'])})"
        )
        if of_folds := results.get(f"test_{score}_of_folds"):
            numbers = ("undefined" if value is None else f"{value:.4f}" for value in of_folds)
            defined = [value for value in of_folds if value is not None]
            mean = sum(defined) / len(defined) if defined else math.nan
            text += f"\n{score} of each fold: {', '.join(numbers)}; mean {mean:.4f}"
            if not defined or mean - test_score > _DIFFERENCE_OF_LEVELS:
                text += (
                    f"\nwarning: {score} over all networks compares predictors that differ in level more than they "
                    "tell networks apart; more epochs may help"
                )
        for name, value in results.get("test_references", {}).items():
            text += f"\n{name.replace('_', ' ')}: {'undefined' if value is None else f'{value:.4f}'}"
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
