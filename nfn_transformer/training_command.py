"""What main.py, xgb.py and gbm.py share: from flags to a trained and tested predictor in its run directory."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from nfn_transformer import cli, cli_flags
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.experiments import tracking
from nfn_transformer.experiments.config import RunConfig
from nfn_transformer.experiments.experiment import Experiment, begin, reopen
from nfn_transformer.experiments.final_report import COMPLETE, evaluate_best, read_summary
from nfn_transformer.experiments.learners import load_fitted
from nfn_transformer.experiments.progress import Record
from nfn_transformer.experiments.run_directory import RunDirectory

# What may be given with --resume: nothing that decides a run's numbers, but the device if one insists.
_FREE_ON_RESUME = {"resume", "device", "data_path", "n_workers", "load_cache", "wandb", "project", "entity"}


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains a predictor.

    Fields: program, its file; build_parser, its flags, among them those of `cli_flags`; run_config, what they ask for.
    """

    program: str
    build_parser: Callable[[], argparse.ArgumentParser]
    run_config: Callable[[argparse.Namespace], RunConfig]

    @property
    def path(self) -> Path:
        """Where its file is."""
        return Path(__file__).with_name(self.program)

    def run(self, arguments: Sequence[str]) -> int:
        """Train, or go on; test once; report. Returns the exit status."""
        flags = self.build_parser().parse_args(arguments)
        if flags.resume is None:
            experiment = begin(self.run_config(flags), flags.out_dir, flags.load_cache, flags.n_workers)
        else:
            given = self._resume_flags(flags.resume, arguments)
            finished = RunDirectory.open(flags.resume)
            if finished.results_file.is_file():
                print("this run is finished")
                return _report_results(finished)
            experiment = _reopen(flags, given)
        _describe(experiment)
        return self._work(experiment, flags)

    def _resume_flags(self, run: Path, arguments: Sequence[str]) -> dict[str, object]:
        """The flags on the command line, none of which may decide the run's numbers."""
        given = cli_flags.explicit_flags(self.build_parser(), arguments)
        fixed = ", ".join(f"--{name}" for name in sorted(set(given) - _FREE_ON_RESUME))
        if fixed:
            raise RunError(f"--resume {run} goes on by the run's own configuration; leave out {fixed}")
        return given

    def _work(self, experiment: Experiment, flags: argparse.Namespace) -> int:
        tracker, status = tracking.NoTracker(), cli.EXIT_FAILURE
        try:
            tracker = _tracker(flags, experiment)
            status = _train_and_test(experiment, flags.resume is not None, tracker)
        except KeyboardInterrupt:
            place = experiment.run.path
            print(f"\ninterrupted; go on by: python nfn_transformer/{self.program} --resume {place}", file=sys.stderr)
            status = cli.EXIT_INTERRUPTED
        finally:
            tracker.finish(status)
        return status


def _reopen(flags: argparse.Namespace, given: dict[str, object]) -> Experiment:
    """The run of --resume; `given` are the flags on the command line."""
    device = cli.device(flags.device) if "device" in given else None
    return reopen(flags.resume, device, flags.data_path, flags.load_cache, flags.n_workers)


def _describe(experiment: Experiment) -> None:
    data, config = experiment.data, experiment.config
    sides = ", ".join(f"{len(getattr(data.split, side))} {side}" for side in ("train", "validation", "test"))
    print(data.zoo.report.summary())
    print(f"split by seed {config.seed}: {sides}")
    if config.data.augment:
        print(f"each side is {config.data.augment_factor} times its size, by transformed copies of its own members")
    print(f"model: {experiment.learner.describe()}; device {config.device}")
    print(f"run directory: {experiment.run.path}", flush=True)


def _tracker(flags: argparse.Namespace, experiment: Experiment) -> tracking.Tracker:
    if not tracking.wanted(flags.wandb):
        return tracking.NoTracker()
    run, config = experiment.run, experiment.config
    try:
        return tracking.WandbTracker(flags.project, flags.entity, config.to_json(), run.path)
    except UserError:
        if flags.resume is None:
            shutil.rmtree(run.path)  # it holds nothing but its own description yet
        raise


def _train_and_test(experiment: Experiment, resume: bool, tracker: tracking.Tracker) -> int:
    run, config, data = experiment.run, experiment.config, experiment.data
    total = config.training.length

    def report(record: Record) -> None:
        if line := record.line(total):
            tqdm.write(line)
        tracker.log(record.row())

    progress = experiment.learner.train(run, data, resume, report)
    if progress.diverged and progress.best is None:
        print(f"stopped: {progress.diverged}; no epoch was finished", file=sys.stderr)
        return cli.EXIT_FAILURE
    test = evaluate_best(data, progress, load_fitted(run, experiment.learner.data_device), run, config.seed)
    best = {f"best_validation_{name}": value for name, value in asdict(progress.best.validation).items()}
    tracker.summarize({**best, **{f"test_{name}": value for name, value in asdict(test).items()}})
    return _report_results(run)


def _report_results(run: RunDirectory) -> int:
    """Print a finished run's results; the exit status is 0 where it is complete."""
    text, status = read_summary(run)
    print(f"{text}\nrun directory: {run.path}")
    if status == COMPLETE:
        return 0
    print(f"stopped: {status}", file=sys.stderr)
    return cli.EXIT_FAILURE
