"""Cells of a grid: one run each, identified by its configuration, seed and data."""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

from nfn_transformer.errors import RunError, UserError, ZooError
from nfn_transformer.grids.grid_file import Grid, GridError, GridRow, flags_to_argv
from nfn_transformer.grids.recorded_runs import find_runs
from nfn_transformer.launch.job import Job
from nfn_transformer.models.registry import load_plugin
from nfn_transformer.printable import printable
from nfn_transformer.training.config import DataConfig, RunConfig
from nfn_transformer.training.data import data_digest, draw_split, load_zoo, split_record
from nfn_transformer.training.results import RunResult, parse_result, read_seconds, with_costs
from nfn_transformer.training.run import check_predictor
from nfn_transformer.training.run_directory import RunDirectory, read_json
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

# Flags that the grid itself sets.
_NOT_IN_A_GRID = ("seed", "seeds", "out_dir", "resume", "device", "help")
# Fields of DataConfig that decide nothing of how a zoo is read.
_AFTER_READING = (
    "cut_off",
    "train_networks",
    "test_where",
    "augment",
    "augment_factor",
    "augment_scale",
    "edit",
    "edit_side",
)
# Flags that a resumed cell is given again; none of them affects its numbers.
_RESUME_FLAGS = ("n_workers", "load_cache", "stream", "compile", "cuda_graphs", "wandb", "project", "entity")


class Command(Protocol):
    """Command that trains a predictor."""

    @property
    def path(self) -> Path:
        """Path of its program."""

    @property
    def build_parser(self) -> Callable[[], argparse.ArgumentParser]:
        """Build the parser of its flags."""

    @property
    def run_config(self) -> Callable[[argparse.Namespace], RunConfig]:
        """Return the configuration of the run that flags describe."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    row: str
    """Name of the row."""
    column: str
    """Name of the column."""
    seed: int
    """Seed of the run."""
    config: RunConfig
    """Configuration of the run."""
    digest: str | None
    """Digest of the data on the run's split."""
    directory: Path
    """Run directory; absent before the run begins."""
    job: Job
    """Job that makes the run."""

    @property
    def name(self) -> str:
        """Name for the screen."""
        return f"{self.row} | {self.column} | seed {self.seed}"

    def result(self) -> RunResult | None:
        """Return the result; None if the cell is not finished.

        Raises:
            RunError: the directory holds another run than the cell's, or is damaged.
        """
        if not self.job.is_finished():
            return None
        run = RunDirectory.open(self.directory)
        config, _ = run.read_config()
        if _identity(config, data_digest(read_json(run.split_file), config)) != _identity(self.config, self.digest):
            raise RunError(f"{run.path}: holds another run than this cell's; move it away")
        threads = config.versions.get("threads", "?")
        machine = f"{config.device} with {threads} thread{'' if threads == '1' else 's'}"
        result = replace(parse_result(read_json(run.results_file), run.results_file), machine=machine)
        return with_costs(result, run.metrics_file)

    def seconds(self) -> float | None:
        """Return the seconds that the training took by its own count; None if it has not begun."""
        try:
            return sum(read_seconds(self.directory / "metrics.csv"))
        except ValueError:
            return None


@dataclass(frozen=True)
class Impossible:
    """Cells that cannot be run."""

    column: str
    """Name of their column."""
    reason: str
    """Reason."""


def plan(
    grid: Grid, commands: Mapping[str, Command], folder: Path, device: str, data_path: str | None
) -> tuple[list[Cell], list[Impossible]]:
    """Plan all cells of a grid, seed after seed, so that one seed of the whole table is finished early.

    Every zoo is read once, which leaves its cache to the cells.

    Args:
        grid: to run.
        commands: main, xgb and gbm.
        folder: of the cells' run directories, which tables share.
        device: --device of all cells.
        data_path: zoo of all cells; None: that of the grid.

    Raises:
        UserError: a command refuses its flags, or a zoo cannot be read.
    """
    zoos: dict[DataConfig, Zoo | MixedZoo] = {}
    records: dict[tuple[DataConfig, int], dict] = {}
    cells, impossible = [], []
    for seed in grid.seeds:
        for column in grid.columns:
            for row in grid.rows:
                flags = {**row.flags, **column.flags, **({} if data_path is None else {"data_path": data_path})}
                context = f"{grid.path}: row '{row.name}', column '{column.name}'"
                command, parsed = _parse(row, flags, seed, commands, context)
                try:
                    config = command.run_config(parsed)
                    digest = _digest(config, parsed, zoos, records)
                    check_predictor(config, zoos[_source(config.data)])  # rather now than when the cell runs
                    if row.recorded:
                        earlier = _with_settings(config, row.recorded)
                        config = earlier if _directory(earlier, digest, folder).exists() else config
                except _NoSplit as error:
                    impossible.append(Impossible(column.name, str(error)))
                    continue
                except UserError as error:
                    raise GridError(f"{context}: {error}") from None
                directory = _directory(config, digest, folder)
                job = _job(command, flags, config, device, directory)
                cells.append(Cell(row.name, column.name, seed, config, digest, directory, job))
    return cells, list(dict.fromkeys(impossible))


class _NoSplit(Exception):
    """A zoo has too few networks above a cut-off."""


def _parse(
    row: GridRow, flags: Mapping[str, str], seed: int, commands: Mapping[str, Command], context: str
) -> tuple[Command, argparse.Namespace]:
    if row.command not in commands:
        raise GridError(f"{context}: no command '{row.command}'; expected one of {', '.join(commands)}")
    for name in _NOT_IN_A_GRID:
        if name in flags:
            raise GridError(f"{context}: the flag '{name}' is set by reproduce.py; leave it out")

    def refuse(message: str) -> NoReturn:
        hint = "; flags that only one command has go under flags_of" if "unrecognized" in message else ""
        raise GridError(f"{context}: {message}{hint}")

    if "plugin" in flags:
        load_plugin(flags["plugin"])
    try:
        parser = commands[row.command].build_parser()
    except argparse.ArgumentError as error:  # a plugin's flag is another one already
        raise GridError(f"{context}: {error}") from None
    # argparse would end the program without naming the grid's row.
    parser.error = refuse  # type: ignore[method-assign]
    # The device does not matter here, and that of the cells may be on another machine.
    return commands[row.command], parser.parse_args([*flags_to_argv(flags), "--seed", str(seed), "--device", "cpu"])


def _digest(config: RunConfig, flags: argparse.Namespace, zoos: dict, records: dict) -> str | None:
    source = _source(config.data)
    split = replace(
        source,
        cut_off=config.data.cut_off,
        train_networks=config.data.train_networks,
        test_where=config.data.test_where,
    )
    if (split, config.seed) not in records:
        if source not in zoos:
            zoos[source] = load_zoo(config.data, flags.load_cache, flags.n_workers)
        try:
            drawn_split = draw_split(zoos[source], config.data, config.seed)
        except ZooError as error:
            raise _NoSplit(str(error)) from None
        records[split, config.seed] = split_record(zoos[source], drawn_split)
    return data_digest(records[split, config.seed], config)


def _source(data: DataConfig) -> DataConfig:
    """Return the part of the configuration that selects the checkpoints of a zoo."""
    return replace(data, **{name: getattr(DataConfig, name) for name in _AFTER_READING})


def _identity(config: RunConfig, digest: str | None) -> str:
    """Return a text that is equal for two runs only if the same numbers are to be expected."""
    return json.dumps([config.key_values(), digest], sort_keys=True)


def _with_settings(config: RunConfig, settings: Mapping[str, str]) -> RunConfig:
    """Return the configuration with other whole numbers of its model."""
    values = config.to_json()
    numbers = {name: int(value) for name, value in settings.items()}
    return RunConfig.from_json({**values, "predictor": {**values["predictor"], **numbers}})


def _directory(config: RunConfig, digest: str | None, folder: Path) -> Path:
    """Return the run directory of a cell."""
    key = hashlib.sha256(_identity(config, digest).encode()).hexdigest()[:12]
    return folder.resolve() / f"{config.data.dataset}-{config.predictor.name}-seed{config.seed}-{key}"


def _job(command: Command, flags: Mapping[str, str], config: RunConfig, device: str, directory: Path) -> Job:
    program, data_path = str(command.path), config.data.data_path
    plugin = {"plugin": str(Path(flags["plugin"]).resolve())} if "plugin" in flags else {}
    argv = flags_to_argv({**flags, **plugin, "data_path": data_path})
    begin = (program, *argv, "--seed", str(config.seed), "--device", device, "--out_dir", str(directory))
    overrides = plugin | {name: flags[name] for name in _RESUME_FLAGS if name in flags}
    if config.data.table is not None:  # a cell may have begun where files had other paths
        overrides["table"] = config.data.table
    if config.ceiling_images:
        overrides |= {"ceiling_images": config.ceiling_images, "ceiling_skip": str(config.ceiling_skip)}
    if device != "auto":
        overrides["device"] = device
    resume = (program, "--resume", str(directory), "--data_path", data_path, *flags_to_argv(overrides))
    return Job(
        path=str(directory),
        finished_file=str(directory / "results.json"),
        state_file=str(directory / "state.pt"),
        begin=begin,
        begun_file=str(directory / "config.json"),
        resume=resume,
    )


def take_runs(cells: Sequence[Cell], folders: Sequence[Path]) -> tuple[list[Cell], int]:
    """Take finished runs in folders in the place of unfinished cells of the same configuration, seed and data.

    Returns:
        cells: with the runs' directories.
        count: number of cells that runs were taken for.

    Raises:
        UserError: there is no such folder.
    """
    wanted = {cell.digest for cell in cells}
    plugins = {each for cell in cells for each in getattr(cell.config.predictor, "plugins", {}).values()}
    directories: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--runs {folder}: expected a folder of runs, got none")
        for path in find_runs(folder):
            run = RunDirectory(path.resolve())
            try:
                record, values = read_json(run.split_file), read_json(run.config_file)
                own_plugins = dict(values.get("predictor", {}).get("plugins", {}))
                # Reading a configuration would run a plugin that the grid does not name.
                if not run.is_finished or not plugins.issuperset(own_plugins.values()):
                    continue
                config, _ = run.read_config()
                digest = data_digest(record, config)
                if digest in wanted:
                    directories.setdefault(_identity(config, digest), run.path)
            except (UserError, AttributeError, TypeError, ValueError):
                continue  # what is damaged is no cell
    taken = []
    for cell in cells:
        run_path = None if cell.job.is_finished() else directories.get(_identity(cell.config, cell.digest))
        if run_path is not None:
            finished, state = str(run_path / "results.json"), str(run_path / "state.pt")
            job = replace(cell.job, path=str(run_path), finished_file=finished, state_file=state)
            cell = replace(cell, directory=run_path, job=job)
        taken.append(cell)
    return taken, sum(one is not other for one, other in zip(cells, taken, strict=True))


def results_of(cells: Sequence[Cell]) -> tuple[dict[tuple[str, str, int], RunResult], list[str]]:
    """Return the results of the finished cells, (row, column, seed) -> result, and the problems of others."""
    results, problems = {}, []
    for cell in cells:
        try:
            if (result := cell.result()) is not None:
                results[cell.row, cell.column, cell.seed] = result
        except UserError as error:
            problems.append(f"{cell.name}: {printable(str(error))}")
    return results, problems
