"""Train a predictor of accuracy on the weights of a zoo of transformers, and test it once.

python nfn_transformer/main.py --dataset digits --data_path data/digits_transformers.zip
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from tqdm import tqdm

from nfn_transformer import cli, cli_flags
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.experiments import tracking
from nfn_transformer.experiments.config import RunConfig, TrainingConfig, installed_versions
from nfn_transformer.experiments.experiment import Experiment, begin, reopen
from nfn_transformer.experiments.final_report import COMPLETE, evaluate_best, read_summary
from nfn_transformer.experiments.optimization import OPTIMIZERS
from nfn_transformer.experiments.run_directory import RunDirectory
from nfn_transformer.experiments.training import EpochRecord, Trainer
from nfn_transformer.layers.initialization import INIT_TYPES
from nfn_transformer.models.config import CLASSIFIER_MODES, EMBEDDING_MODES, ENCODER_MODES, ModelConfig

# What may be given with --resume: nothing that decides a run's numbers, but the device if one insists.
_FREE_ON_RESUME = {"resume", "device", "data_path", "n_workers", "load_cache", "wandb", "project", "entity"}


def build_parser() -> argparse.ArgumentParser:
    """The command's flags, in groups."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Train a predictor of accuracy on the weights of a zoo of transformers, and test it once.",
        formatter_class=cli.HelpFormatter,
        allow_abbrev=False,
    )
    cli_flags.add_data_flags(parser)
    _add_model_flags(parser)
    _add_training_flags(parser)
    cli_flags.add_run_flags(parser)
    cli_flags.add_tracking_flags(parser)
    return parser


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group, default, count = parser.add_argument_group("model"), ModelConfig(), cli.count
    group.add_argument("--model", choices=["transformer_nfn"], default="transformer_nfn", help="family of the model")
    group.add_argument(
        "--enc_mode",
        choices=ENCODER_MODES,
        default=default.enc_mode,
        help="encoder blocks: inv, equivariant layers and an invariant one; statnn, statistics of each tensor; "
        "mlp, flattened weights; no, not read",
    )
    group.add_argument(
        "--cls_mode",
        choices=CLASSIFIER_MODES,
        default=default.cls_mode,
        help="classifier: hnps, layers that respect permuting and scaling of hidden neurons; the others as above",
    )
    group.add_argument(
        "--emb_mode",
        choices=EMBEDDING_MODES,
        default=default.emb_mode,
        help="embedding: mlp, one Linear on its weights",
    )
    for name, what in (("transformers_nfn_channels", "encoder"), ("classifier_nfn_channels", "classifier")):
        channels = ",".join(map(str, getattr(default, name)))
        group.add_argument(
            f"--{name}", type=cli.channels, default=channels, help=f"channels of each {what} layer, as in 10,10"
        )
    for name in ("num_out_classify", "num_out_embedding", "num_out_encoder"):
        what = name.rsplit("_", 1)[1]
        group.add_argument(
            f"--{name}", type=count, default=getattr(default, name), help=f"numbers from the {what} branch"
        )
    group.add_argument(
        "--init_type", choices=INIT_TYPES, default=default.init_type, help="initialisation of weight-space layers"
    )


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    group, default, count = parser.add_argument_group("training"), TrainingConfig(), cli.count
    group.add_argument("--epochs", type=count, default=default.epochs, help="passes over the training split")
    group.add_argument(
        "--warmup_epochs",
        type=cli.number(int, 0),
        default=default.warmup_epochs,
        help="epochs over which the learning rate rises to --lr, before its cosine to 1e-5; at most --epochs",
    )
    group.add_argument("--batch_size", type=count, default=default.batch_size, help="networks per training step")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default=default.optimizer, help="rule of the updates")
    group.add_argument(
        "--lr", type=cli.number(float, 0, above=True), default=default.lr, help="learning rate after the warm-up"
    )
    group.add_argument("--wd", type=cli.number(float, 0), default=default.wd, help="weight decay (L2)")


def _run_config(flags: argparse.Namespace) -> RunConfig:
    def part(kind):
        return kind(**{field.name: getattr(flags, field.name) for field in fields(kind)})

    return RunConfig(
        seed=flags.seed,
        model=flags.model,
        data=cli_flags.data_config(flags),
        predictor=part(ModelConfig),
        training=part(TrainingConfig),
        device=str(cli.device(flags.device)),
        versions=installed_versions(),
    )


def _resume_flags(run: Path, arguments: Sequence[str]) -> dict[str, object]:
    """The flags on the command line, none of which may decide the run's numbers."""
    given = cli_flags.explicit_flags(build_parser(), arguments)
    fixed = ", ".join(f"--{name}" for name in sorted(set(given) - _FREE_ON_RESUME))
    if fixed:
        raise RunError(f"--resume {run} goes on by the run's own configuration; leave out {fixed}")
    return given


def _reopen(flags: argparse.Namespace, given: dict[str, object]) -> Experiment:
    """The run of --resume; `given` are the flags on the command line."""
    device = cli.device(flags.device) if "device" in given else None
    return reopen(flags.resume, device, flags.data_path, flags.load_cache, flags.n_workers)


def _describe(experiment: Experiment) -> None:
    data, modes = experiment.data, experiment.config.predictor
    sides = ", ".join(f"{len(getattr(data.split, side))} {side}" for side in ("train", "validation", "test"))
    parameters = sum(parameter.numel() for parameter in experiment.model.parameters())
    print(data.zoo.report.summary())
    print(f"split by seed {experiment.config.seed}: {sides}")
    print(
        f"model: encoder {modes.enc_mode}, classifier {modes.cls_mode}, embedding {modes.emb_mode}; "
        f"{parameters:,} parameters; device {data.zoo.rows.device}"
    )
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

    def report(record: EpochRecord) -> None:
        tqdm.write(record.line(config.training.epochs))
        tracker.log(record.row())

    trainer = Trainer(experiment.model, data, config.training, config.seed, run, report)
    if resume:
        trainer.resume()
    progress = trainer.train()
    if progress.diverged and progress.best is None:
        print(f"stopped: {progress.diverged}; no epoch was finished", file=sys.stderr)
        return cli.EXIT_FAILURE
    test = evaluate_best(data, progress, run)
    tracker.summarize({f"test_{name}": value for name, value in asdict(test).items()})
    return _report_results(run)


def _report_results(run: RunDirectory) -> int:
    """Print a finished run's results; the exit status is 0 where it is complete."""
    text, status = read_summary(run)
    print(f"{text}\nrun directory: {run.path}")
    if status == COMPLETE:
        return 0
    print(f"stopped: {status}", file=sys.stderr)
    return cli.EXIT_FAILURE


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    flags = build_parser().parse_args(arguments)
    if flags.resume is None:
        experiment = begin(_run_config(flags), flags.out_dir, flags.load_cache, flags.n_workers)
    else:
        given = _resume_flags(flags.resume, arguments)
        finished = RunDirectory.open(flags.resume)
        if finished.results_file.is_file():
            print("this run is finished")
            return _report_results(finished)
        experiment = _reopen(flags, given)
    _describe(experiment)
    tracker, status = tracking.NoTracker(), cli.EXIT_FAILURE
    try:
        tracker = _tracker(flags, experiment)
        status = _train_and_test(experiment, flags.resume is not None, tracker)
    except KeyboardInterrupt:
        place = experiment.run.path
        print(f"\ninterrupted; go on by: python nfn_transformer/main.py --resume {place}", file=sys.stderr)
        status = cli.EXIT_INTERRUPTED
    finally:
        tracker.finish(status)
    return status


if __name__ == "__main__":
    cli.run_command(main)
