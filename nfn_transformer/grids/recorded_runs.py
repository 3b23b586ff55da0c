"""Runs as their directories record them, read without PyTorch and without running a plugin."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nfn_transformer.errors import RunError, UserError
from nfn_transformer.training.config import RunConfig
from nfn_transformer.training.results import RunResult, parse_result, read_json, read_seconds, with_costs

# Parts of config.json that say how, when and on what a run was made, not what it is.
_CIRCUMSTANCES = ("versions", "command", "commit", "networks", "device", "fit_all", "ceiling_images", "ceiling_skip")


@dataclass(frozen=True)
class RecordedRun:
    """A run that has begun."""

    path: Path
    """Run directory."""
    values: Mapping[str, Any]
    """Configuration as JSON, without the run's circumstances."""
    key: Mapping[str, Any]
    """Part of the configuration that decides numbers, see `RunConfig.key_values`."""
    name: str
    """Readable name of the predictor."""
    result: RunResult | None
    """Result; None if the run is not finished."""
    progress: int
    """Number of finished epochs or rounds."""
    seconds: float
    """Seconds that they took."""

    def settings(self, *parts: str) -> dict[str, Any]:
        """Return the settings of parts of the configuration by name, those of nested parts among them."""
        settings: dict[str, Any] = {}
        for part in parts:
            for name, value in self.values[part].items():
                settings |= value if isinstance(value, dict) and name == "parameters" else {name: value}
        return {name: value for name, value in settings.items() if name != "plugins"}


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the run directories in a folder and below, sorted by path; the folder itself if it is one."""
    if (folder / "config.json").is_file():
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from find_runs(path)


def read_run(path: Path) -> RecordedRun:
    """Return the run in a directory.

    Raises:
        RunError: a file is damaged.
    """
    values = read_json(path / "config.json")
    try:
        predictor = values["predictor"]
        if predictor.get("plugins"):  # reading its configuration would run the plugin
            key = {name: values[name] for name in ("seed", "model", "data", "predictor", "training")}
            key["data"] = {name: value for name, value in key["data"].items() if name != "data_path"}
            name = "-".join(str(predictor[mode]) for mode in ("enc_mode", "cls_mode", "emb_mode"))
        else:
            config = RunConfig.from_json({name: value for name, value in values.items() if name != "networks"})
            values, key, name = config.to_json(), config.key_values(), config.predictor.name
        values = {name: value for name, value in values.items() if name not in _CIRCUMSTANCES}
        if not isinstance(values["seed"], int) or not all(isinstance(values[p], dict) for p in ("data", "training")):
            raise TypeError("seed, data or training")
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path / 'config.json'}: is not the configuration of a run: {error!r}") from None
    try:
        seconds = read_seconds(path / "metrics.csv")
    except ValueError:
        seconds = []
    result, file = None, path / "results.json"
    if file.is_file():
        predictions = path / "out_of_fold_predictions.csv"
        predictions = predictions if predictions.is_file() else path / "test_predictions.csv"
        result = replace(parse_result(read_json(file), file), tested=_tested(predictions))
        result = with_costs(result, path / "metrics.csv")
    return RecordedRun(path, values, key, name, result, len(seconds), sum(seconds))


def _tested(file: Path) -> str:
    """Return a digest of the tested networks' files and labels, whatever was predicted."""
    try:
        with open(file, newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        for row in rows:  # an edit has no labels: its file holds errors
            if not {"accuracy", "label", "unedited"} & row.keys():
                raise KeyError("accuracy")
        tested = sorted((row["file"], row.get("accuracy") or row.get("label") or "") for row in rows)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{file}: cannot be read: {error}") from None
    return hashlib.sha256(json.dumps(tested).encode()).hexdigest()


def read_runs(paths: Sequence[Path]) -> tuple[list[RecordedRun], list[str]]:
    """Return the runs in folders and below, each once, and what is wrong with others.

    Raises:
        UserError: there is no such folder.
    """
    runs: dict[Path, RecordedRun] = {}
    problems = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: expected a run directory, or a folder of runs, got no folder")
        for directory in find_runs(path):
            try:
                runs.setdefault(directory.resolve(), read_run(directory))
            except RunError as error:
                problems.append(str(error))
    return list(runs.values()), problems


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of settings that have several values, among those that have them."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({json.dumps(each[name]) for each in settings if name in each}) > 1]


def setting_text(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return these settings as text, as in `lr 0.01, where ''`; absent ones are left out."""
    return ", ".join(f"{name} {_text(settings[name])}" for name in names if name in settings)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value) or "''"
