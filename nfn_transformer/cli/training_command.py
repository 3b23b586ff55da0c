"""What main.py, xgb.py and gbm.py share: from flags to a trained and tested predictor in its run directory."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from nfn_transformer.cli import flags as shared_flags
from nfn_transformer.cli.arguments import find_device
from nfn_transformer.cli.program import EXIT_FAILURE, EXIT_INTERRUPTED
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.training import tracking
from nfn_transformer.training.config import RunConfig
from nfn_transformer.training.distributed import Distributed
from nfn_transformer.training.experiment import Experiment, ResumeOverrides, begin, reopen
from nfn_transformer.training.final_report import COMPLETE, evaluate_best, read_summary
from nfn_transformer.training.learners import Job, load_trained, train_learners
from nfn_transformer.training.loop import Feeding
from nfn_transformer.training.progress import Progress, Record
from nfn_transformer.training.run_directory import RunDirectory

# What may be given with --resume: nothing that decides a run's numbers, but the device if one insists.
_FREE_ON_RESUME = {
    *("resume", "plugin", "device", "data_path", "n_workers", "load_cache", "stream", "compile", "cuda_graphs"),
    *("wandb", "project", "entity"),
}


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains a predictor.

    Fields: program, its file; build_parser, its flags, among them those of `cli_flags`; run_config, what they ask for;
    shares_a_run, whether processes that torchrun started can share a run.
    """

    program: str
    build_parser: Callable[[], argparse.ArgumentParser]
    run_config: Callable[[argparse.Namespace], RunConfig]
    shares_a_run: bool = False

    @property
    def path(self) -> Path:
        """Where its file is."""
        return Path(__file__).parents[1] / self.program

    def run(self, arguments: Sequence[str]) -> int:
        """Train, or go on; test once; report. Returns the exit status."""
        flags = self.build_parser().parse_args(arguments)
        processes = Distributed.from_environment()
        given = shared_flags.explicit_flags(self.build_parser(), arguments)
        self._check(flags, given, processes)
        statuses = []
        if flags.resume is not None:
            unfinished = [path for path in flags.resume if not RunDirectory.open(path).results_file.is_file()]
            for path in flags.resume:
                if path not in unfinished:
                    print("this run is finished")
                    statuses.append(_report_results(RunDirectory.open(path)))
            if not unfinished:
                return max(statuses)
            flags.resume = unfinished
        with processes.joined(_device(flags, given)):
            statuses.append(self._work(self._experiments(flags, given, processes), flags, processes))
        return max(statuses)

    def _check(self, flags: argparse.Namespace, given: dict[str, object], processes: Distributed) -> None:
        """Raise UserError where flags contradict each other."""
        if flags.resume is not None:
            fixed = ", ".join(f"--{name}" for name in sorted(set(given) - _FREE_ON_RESUME))
            if fixed:
                runs = " ".join(map(str, flags.resume))
                raise RunError(f"--resume {runs} goes on by the run's own configuration; leave out {fixed}")
        if flags.seeds is not None and "seed" in given:
            raise UserError("--seed and --seeds contradict each other; give one of them")
        if processes.count > 1 and given.get("cuda_graphs"):
            raise UserError("--cuda_graphs True: torchrun started several processes; CUDA graphs need one alone")
        runs = len(flags.resume or flags.seeds or [flags.seed])
        if processes.count > 1 and (runs > 1 or not self.shares_a_run):
            what = "several runs at once" if self.shares_a_run else f"what {self.program} trains"
            raise UserError(f"torchrun shares one network's training among processes, not {what}; start it by python")

    def _experiments(
        self, flags: argparse.Namespace, given: dict[str, object], processes: Distributed
    ) -> list[Experiment]:
        if flags.resume is None:
            config = self.run_config(flags)
            configs = [replace(config, seed=seed) for seed in flags.seeds or [flags.seed]]
            out_dirs = [flags.out_dir]
            if flags.seeds is not None:
                place = flags.out_dir
                out_dirs = [None if place is None else place / f"seed{seed}" for seed in flags.seeds]
            return begin(configs, out_dirs, flags.load_cache, flags.n_workers, processes)
        overrides = ResumeOverrides(
            device=find_device(flags.device) if "device" in given else None,
            data_path=flags.data_path,
            compile=given.get("compile"),
            cuda_graphs=given.get("cuda_graphs"),
        )
        return reopen(flags.resume, overrides, flags.load_cache, flags.n_workers, processes)

    def _work(self, experiments: list[Experiment], flags: argparse.Namespace, processes: Distributed) -> int:
        if processes.is_main:
            _describe(experiments)
        trackers: list[tracking.Tracker] = []
        status = EXIT_FAILURE
        try:
            if processes.is_main:
                _open_trackers(trackers, flags, experiments)
            status = _train_and_test(experiments, flags, trackers, processes)
        except KeyboardInterrupt:
            if processes.is_main:
                places = " ".join(str(experiment.run.path) for experiment in experiments)
                words = f"python nfn_transformer/{self.program} --resume {places}"
                print(f"\ninterrupted; go on by: {words}", file=sys.stderr)
            status = EXIT_INTERRUPTED
        finally:
            for tracker in trackers:
                tracker.finish(status)
        return status


def _device(flags: argparse.Namespace, given: dict[str, object]) -> str:
    """The device that is wanted, as far as it is known before anything else is read."""
    if flags.resume is None or "device" in given:
        return str(find_device(flags.device))
    config, _ = RunDirectory.open(flags.resume[0]).read_config()
    return config.device


def _describe(experiments: list[Experiment]) -> None:
    first = experiments[0]
    print(first.data.zoo.report.summary())
    for experiment in experiments:
        data, seed = experiment.data, experiment.config.seed
        sides = ", ".join(f"{len(getattr(data.split, side))} {side}" for side in ("train", "validation", "test"))
        print(f"split by seed {seed}: {sides}")
    if first.config.data.augment:
        factor = first.config.data.augment_factor
        print(f"each side is {factor} times its size, by transformed copies of its own members")
    print(f"model: {first.learner.describe()}; device {first.config.device}")
    for experiment in experiments:
        print(f"run directory: {experiment.run.path}", flush=True)


def _open_trackers(trackers: list[tracking.Tracker], flags: argparse.Namespace, experiments: list[Experiment]) -> None:
    """Append a tracker for each experiment."""
    if not tracking.wanted(flags.wandb):
        trackers.extend(tracking.NoTracker() for _ in experiments)
        return
    for experiment in experiments:
        run, config = experiment.run, experiment.config
        try:
            trackers.append(
                tracking.WandbTracker(flags.project, flags.entity, config.to_json(), run.path, len(experiments) > 1)
            )
        except UserError:
            if flags.resume is None:
                for begun in experiments:
                    shutil.rmtree(begun.run.path)  # they hold nothing but their own description yet
            raise


def _train_and_test(
    experiments: list[Experiment], flags: argparse.Namespace, trackers: list[tracking.Tracker], processes: Distributed
) -> int:
    many = len(experiments) > 1

    def job(place: int, experiment: Experiment) -> Job:
        total, seed = experiment.config.training.length, experiment.config.seed

        def report(record: Record) -> None:
            if line := record.line(total):
                tqdm.write(f"seed {seed}  {line}" if many else line)
            trackers[place].log(record.row())

        return Job(experiment.learner, experiment.run, experiment.data, flags.resume is not None, report)

    jobs = [job(place, experiment) for place, experiment in enumerate(experiments)]
    progresses = train_learners(jobs, Feeding(flags.stream, flags.n_workers), processes)
    if not processes.is_main:
        return 0
    return max(_test(*parts) for parts in zip(experiments, progresses, trackers, strict=True))


def _test(experiment: Experiment, progress: Progress, tracker: tracking.Tracker) -> int:
    run, config = experiment.run, experiment.config
    if progress.diverged and progress.best is None:
        print(f"stopped: {progress.diverged}; no epoch was finished ({run.path})", file=sys.stderr)
        return EXIT_FAILURE
    fitted = load_trained(run, torch.device(experiment.learner.device))
    test = evaluate_best(experiment.data, progress, fitted, run, config.seed)
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
    return EXIT_FAILURE
