"""Results of a finished run as its directory holds them; read without PyTorch."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nfn_transformer.bounded_text import parse_json
from nfn_transformer.errors import RunError
from nfn_transformer.training.tasks import TASKS

FINISHED = "complete"
"""Status in results.json of a run that was not stopped by its loss."""

PEAK = "peak_mib"
"""Column of metrics.csv with the peak memory; earlier versions wrote none."""

FEW = 30
"""Number of tested networks below which no score is shown without a warning."""


def few_networks(count: int) -> str:
    """Return a warning, after a number of networks, where so few were tested; else nothing."""
    return f"; warning: fewer than {FEW} tell little" if count < FEW else ""


@dataclass(frozen=True)
class RunResult:
    """Results of a finished run."""

    score: float
    """Score of the task on the test side, as Kendall's tau; nan if undefined."""
    low: float
    """Lower end of the score's interval; nan if it was not computed."""
    high: float
    """Upper end of the score's interval; nan if it was not computed."""
    r2: float
    """Coefficient of determination on the test side; nan if the task has none."""
    mae: float
    """Mean absolute error on the test side; nan if the task has none."""
    validation_score: float
    """Score on the validation side."""
    train: int
    """Number of training networks."""
    test: int
    """Number of test networks."""
    status: str
    """`complete`, or the reason why the training ended early."""
    machine: str = ""
    """Device and number of CPU threads, which may change the last digits."""
    tested: str = ""
    """Digest of the tested networks' files and labels; empty if they are those of the split alone."""
    task: str = "accuracy"
    """Name of the task."""
    parameters: int = 0
    """Numbers that a network learned; 0 of trees."""
    epoch_seconds: float = math.nan
    """Median seconds of a network's epoch, training and validation; nan of trees and where they are not known."""
    peak_mib: float = math.nan
    """Peak memory of the training, see `resources.peak_mib`; nan where it is not known."""


def parse_result(values: Mapping, path: Path) -> RunResult:
    """Return the results in the values of a file results.json.

    Raises:
        RunError: a value is missing, or is no number.
    """
    try:
        task, test = values.get("task", "accuracy"), values["test"]
        score = TASKS[task].score.key
        interval = values.get(f"test_{score}_interval") or {}
        return RunResult(
            score=_number(test[score]),
            low=_number(interval.get("low")),
            high=_number(interval.get("high")),
            r2=_number(test.get("r2")),
            mae=_number(test.get("mae")),
            validation_score=_number(values["validation"][score]),
            train=int(values["networks"]["train"]),
            test=int(values["networks"]["test"]),
            status=str(values["status"]),
            task=task,
            parameters=int(values.get("parameters", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: is not what a finished run writes: {error!r}") from None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def read_seconds(metrics_file: Path) -> list[float]:
    """Return the seconds of each finished epoch or round in a file metrics.csv, by its own count.

    Raises:
        ValueError: the file is not there, or is damaged.
    """
    return _column(metrics_file, "seconds")


def with_costs(result: RunResult, metrics_file: Path) -> RunResult:
    """Return a result with the costs in the run's metrics.csv, as far as they are there.

    A resumed run has the highest peak of its processes.
    """
    try:
        if result.parameters:
            result = replace(result, epoch_seconds=statistics.median(read_seconds(metrics_file)))
        peaks = [peak for peak in _column(metrics_file, PEAK) if not math.isnan(peak)]
        return replace(result, peak_mib=max(peaks, default=math.nan))
    except ValueError:  # a score without its costs is worth its place in the table
        return result


def _column(metrics_file: Path, name: str) -> list[float]:
    try:
        header, *lines = metrics_file.read_text().splitlines()
        column = header.split(",").index(name)
        return [float(line.split(",")[column]) for line in lines]
    except (OSError, IndexError) as error:
        raise ValueError(f"{metrics_file}: {error}") from None


def duration(seconds: float) -> str:
    """Return a duration as text in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def read_json(path: Path) -> dict:
    """Return a JSON object.

    Raises:
        RunError: the file is missing or holds something else.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: holds a {type(values).__name__}, expected a JSON object")
    return values
