"""Train a predictor of accuracy on the weights of a zoo of transformers, and test it once.

python nfn_transformer/main.py --dataset digits --data_path data/digits_transformers.zip
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from nfn_transformer import atomic_files, cli, cli_flags
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.experiments import tracking
from nfn_transformer.experiments.config import RunConfig, TrainingConfig, installed_versions
from nfn_transformer.experiments.data import draw_split, load_zoo, prepare, recorded_split
from nfn_transformer.experiments.final_report import evaluate_best, summary
from nfn_transformer.experiments.optimization import OPTIMIZERS
from nfn_transformer.experiments.run_directory import RunDirectory, default_path, read_json, write_json
from nfn_transformer.experiments.training import EpochRecord, Trainer
from nfn_transformer.layers.initialization import INIT_TYPES
from nfn_transformer.models.config import CLASSIFIER_MODES, EMBEDDING_MODES, ENCODER_MODES, ModelConfig
from nfn_transformer.models.predictor import build_predictor

# What may differ from the run's own configuration when it is resumed: nothing that decides its numbers.
_FREE_ON_RESUME = {"resume", "device", "n_workers", "load_cache", "wandb", "project", "entity"}


def build_parser() -> argparse.ArgumentParser:
    """The command's flags, in groups."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Train a predictor of accuracy on the weights of a zoo of transformers, and test it once.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    cli_flags.add_data_flags(parser)
    _add_model_flags(parser)
    _add_training_flags(parser)
    cli_flags.add_run_flags(parser)
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="continue the run in this directory, by its own configuration"
    )
    cli_flags.add_tracking_flags(parser)
    return parser


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group, default, count = parser.add_argument_group("model"), ModelConfig(), cli.number(int, 1)
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
    group, default, count = parser.add_argument_group("training"), TrainingConfig(), cli.number(int, 1)
    group.add_argument("--epochs", type=count, default=default.epochs, help="passes over the training split")
    group.add_argument(
        "--warmup_epochs",
        type=cli.number(int, 0),
        default=default.warmup_epochs,
        help="epochs over which the learning rate rises to --lr, before its cosine to 1e-5",
    )
    group.add_argument("--batch_size", type=count, default=default.batch_size, help="networks per training step")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default=default.optimizer, help="rule of the updates")
    group.add_argument(
        "--lr", type=cli.number(float, 0, above=True), default=default.lr, help="learning rate after the warm-up"
    )
    group.add_argument("--wd", type=cli.number(float, 0), default=default.wd, help="weight decay (L2)")


def _run_config(flags: argparse.Namespace, device: str) -> RunConfig:
    def part(kind):
        return kind(**{name: getattr(flags, name) for name in kind.__dataclass_fields__})

    return RunConfig(
        seed=flags.seed,
        model=flags.model,
        data=cli_flags.data_config(flags),
        predictor=part(ModelConfig),
        training=part(TrainingConfig),
        device=device,
        versions=installed_versions(),
    )


def _start(flags: argparse.Namespace, device):
    """A new run: nothing is written before the zoo, the split and the model are sound."""
    config = _run_config(flags, str(device))
    zoo = load_zoo(config.data, flags.load_cache, flags.n_workers)
    config.predictor.check(zoo.spec, config.data.dataset)
    data = prepare(zoo, draw_split(zoo, config.data, config.seed), device)
    model = build_predictor(zoo.spec, config.predictor, config.seed)
    modes = config.predictor
    name = f"{config.data.dataset}-{modes.enc_mode}-{modes.cls_mode}-{modes.emb_mode}-seed{config.seed}"
    run = RunDirectory.create(flags.out_dir or default_path(name))
    write_json(run.split_file, data.to_record())
    atomic_files.write_text(run.excluded_file, zoo.report.csv())
    run.write_config(config, zoo.spec)
    return run, config, data, model


def _reopen(flags: argparse.Namespace, device):
    """A run that has begun, with its own configuration, split and model."""
    run = RunDirectory.open(flags.resume)
    config, spec = run.read_config()
    record = read_json(run.split_file)
    zoo = load_zoo(config.data, flags.load_cache, flags.n_workers)
    if zoo.spec != spec:
        raise RunError(f"{config.data.data_path}: the zoo's networks have other sizes than when the run began")
    data = prepare(zoo, recorded_split(zoo, record), device)
    return run, config, data, build_predictor(zoo.spec, config.predictor, config.seed)


def _check_resume_flags(parser: argparse.ArgumentParser, arguments: Sequence[str], run: Path) -> None:
    given = set(cli_flags.explicit_flags(parser, arguments)) - _FREE_ON_RESUME
    if given:
        names = ", ".join(f"--{name}" for name in sorted(given))
        raise RunError(f"--resume {run} goes on by the run's own configuration; leave out {names}")


def _describe(run: RunDirectory, config: RunConfig, data, model) -> None:
    sides = ", ".join(f"{len(getattr(data.split, side))} {side}" for side in ("train", "validation", "test"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    modes = config.predictor
    print(data.zoo.report.summary())
    print(f"split by seed {config.seed}: {sides}")
    print(
        f"model: encoder {modes.enc_mode}, classifier {modes.cls_mode}, embedding {modes.emb_mode}; "
        f"{parameters:,} parameters; device {data.zoo.rows.device}"
    )
    print(f"run directory: {run.path}", flush=True)


def _train_and_test(run: RunDirectory, config: RunConfig, data, model, resume: bool, tracker: tracking.Tracker) -> int:
    def report(record: EpochRecord) -> None:
        tqdm.write(record.line(config.training.epochs))
        tracker.log(record.row())

    trainer = Trainer(model.to(data.zoo.rows.device), data, config.training, config.seed, run, report)
    if resume:
        trainer.resume()
    progress = trainer.train()
    if progress.diverged:
        print(f"stopped: {progress.diverged}", file=sys.stderr)
        if progress.best is None:
            return 1
    test = evaluate_best(data, progress, run)
    tracker.summarize({f"test_{name}": value for name, value in asdict(test).items()})
    print(summary(read_json(run.results_file)))
    print(f"run directory: {run.path}")
    return 1 if progress.diverged else 0


def _tracker(flags: argparse.Namespace, config: RunConfig, run: RunDirectory) -> tracking.Tracker:
    if not tracking.wanted(flags.wandb):
        return tracking.NoTracker()
    try:
        return tracking.WandbTracker(flags.project, flags.entity, config.to_json(), run.path)
    except UserError:
        if flags.resume is None:
            shutil.rmtree(run.path)  # it holds nothing but its own description yet
        raise


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = build_parser()
    flags = parser.parse_args(arguments)
    if flags.resume is not None:
        _check_resume_flags(parser, arguments, flags.resume)
        finished = RunDirectory.open(flags.resume)
        if finished.results_file.is_file():
            print(f"{summary(read_json(finished.results_file))}\nthis run is complete: {flags.resume}")
            return 0
    device = cli.device(flags.device)
    run, config, data, model = (_start if flags.resume is None else _reopen)(flags, device)
    _describe(run, config, data, model)
    tracker = _tracker(flags, config, run)
    status = 1
    try:
        status = _train_and_test(run, config, data, model, flags.resume is not None, tracker)
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on by: python nfn_transformer/main.py --resume {run.path}", file=sys.stderr)
        status = cli.EXIT_INTERRUPTED
    finally:
        tracker.finish(status)
    return status


if __name__ == "__main__":
    cli.run_command(main)
