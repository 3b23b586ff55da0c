"""Tasks: what a predictor learns of a network. A file in this folder registers its task; nothing else names it.

    TASKS.update(depth=TaskEntry(name="depth", help="...", labels="number", build="my_module:DepthTask", score=TAU))

The files import no PyTorch, so that --help answers at once.
"""

import importlib
import pkgutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Measure by which runs are compared: a key of `test` and `validation` in results.json."""

    key: str
    """Key of the measure; its interval is `test_KEY_interval`."""
    name: str
    """Name in tables and pictures."""
    rises: bool = True
    """True if more is better."""
    decimals: int = 3
    """Decimals in tables."""


TAU = Score("tau", "Kendall's tau")

ALL_TREES = ("xgboost", "lightgbm", "scikit-learn", "blend")
"""Libraries of tree models, see `trees.config.TREE_MODELS`."""


@dataclass(frozen=True)
class TaskEntry:
    """Declaration of a task that can be chosen."""

    name: str
    """Value of --task."""
    help: str
    """Text for --help."""
    labels: str
    """Kind of the labels that are read, one of `zoo.metadata.LABELS`."""
    build: str
    """`module:Class` of a `training.task.Task`, imported when a run begins."""
    score: Score
    """Measure by which runs are compared."""
    fit: str | None = None
    """`module:function` from a zoo, its split and the configuration of both to arguments of `build`, plain values that
    JSON holds; None: none."""
    check: str | None = None
    """`module:function` from the run's configuration and a zoo that raises UserError where they do not suit the task;
    None: all do."""
    settings: tuple[str, ...] = ()
    """Settings of `DataConfig` that other tasks do not take; None where they are not given."""
    trees: tuple[str, ...] = ()
    """Libraries whose tree models learn it."""


TASKS: dict[str, TaskEntry] = {}
"""All tasks by name."""

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
