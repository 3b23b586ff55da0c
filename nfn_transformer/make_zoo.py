"""Make a zoo: train a population of small vision transformers and write it in the release's layout.

    python nfn_transformer/make_zoo.py --out data/my_zoo.zip --runs 200

The same command goes on where an interrupted one has stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer.cli import EXIT_INTERRUPTED, HelpFormatter, add_boolean, device, number, run_command
from nfn_transformer.errors import UserError
from nfn_transformer.making.histogram import save_histogram
from nfn_transformer.making.images import ImageData, digits, idx_folder
from nfn_transformer.making.population import SNAPSHOT_LABELS, TrainingPlan
from nfn_transformer.making.zoo_maker import MadeZoo, ZooPlan, make_zoo
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a population of small vision transformers and write them as a zoo. "
        "The same command goes on where an interrupted one has stopped.",
        formatter_class=HelpFormatter,
    )
    count = number(int, 1)

    group = parser.add_argument_group("the zoo")
    group.add_argument("--out", type=Path, required=True, help="where it goes: a new folder, or a zip if it ends so")
    group.add_argument("--dataset", default="digits", help="its name: metadata/NAME.csv and NAME/*.pt")
    group.add_argument("--runs", type=count, default=1600, help="networks to train, each with drawn hyperparameters")
    group.add_argument("--seed", type=number(int, 0), default=1, help="what all random choices depend on")
    group.add_argument(
        "--snapshots", default="75", help="checkpoints of a run, in percent of its training (1: epoch 1)"
    )
    add_boolean(group, "--half", False, "store weights in half precision; accuracies are those of the stored weights")

    group = parser.add_argument_group("images")
    group.add_argument("--images", type=Path, help="a folder with MNIST's idx files; without it scikit-learn's digits")
    group.add_argument("--train_images", type=count, help="train on the first so many only")
    group.add_argument("--test_images", type=count, help="measure accuracy on the first so many only")
    group.add_argument(
        "--crop_padding", type=number(int, 0), default=0, help="pad train images by this, crop at random"
    )

    group = parser.add_argument_group("the networks")
    group.add_argument("--embed_dim", type=count, default=16, help="width D of the tokens")
    group.add_argument("--n_attention_heads", type=count, default=2, help="heads of each block; they divide D")
    group.add_argument("--n_layers", type=count, default=2, help="encoder blocks")
    group.add_argument("--hidden", type=count, default=32, help="hidden width D_A of each block's MLP")
    group.add_argument("--patch", type=count, default=2, help="patch size; it divides the image's sides")

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=count, default=48, help="length of the training; it ends at the last snapshot")
    group.add_argument("--batch_size", type=count, default=32, help="images in a batch of each network")
    group.add_argument("--population", type=count, default=32, help="networks trained at once")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    return parser


def _images(options: argparse.Namespace) -> ImageData:
    data = digits() if options.images is None else idx_folder(options.images)
    for flag, part in (("--train_images", data.train), ("--test_images", data.test)):
        wanted = getattr(options, flag[2:])
        if wanted is not None and wanted > len(part.labels):
            raise UserError(f"{flag} {wanted}: there are only {len(part.labels)}")
    return data.limited(options.train_images, options.test_images)


def _spec(options: argparse.Namespace, data: ImageData) -> TransformerSpec:
    channels, height, width = data.train.images.shape[1:]
    if height % options.patch or width % options.patch:
        raise UserError(f"--patch {options.patch}: does not divide the images' {height} x {width} pixels")
    heads, dimension = options.n_attention_heads, options.embed_dim
    if dimension % heads:
        raise UserError(f"--n_attention_heads {heads}: does not divide --embed_dim {dimension}")
    tokens = (height // options.patch) * (width // options.patch)
    block = BlockSpec(heads, dimension, dimension // heads, dimension // heads, options.hidden)
    return TransformerSpec(
        blocks=(block,) * options.n_layers,
        classifier=FeedForwardSpec((dimension, dimension, data.classes)),
        embedding=EmbeddingSpec(channels, dimension, (options.patch, options.patch), tokens),
    )


def _snapshots(text: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(text.split(",")))
    if unknown := [label for label in labels if label not in SNAPSHOT_LABELS]:
        raise UserError(f"--snapshots {text}: '{unknown[0]}' is none of {', '.join(SNAPSHOT_LABELS)}")
    return labels


def _plan(options: argparse.Namespace, data: ImageData) -> ZooPlan:
    name = options.dataset
    if name in ("", ".", "..", "metadata") or any(character in name for character in "/\\"):
        raise UserError(f"--dataset '{name}': expected a name that a folder beside metadata/ can have")
    if not options.out.parent.is_dir():
        raise UserError(f"--out {options.out}: no folder {options.out.parent}")
    training = TrainingPlan(
        spec=_spec(options, data),
        seed=options.seed,
        epochs=options.epochs,
        batch_size=options.batch_size,
        crop_padding=options.crop_padding,
        snapshots=_snapshots(options.snapshots),
        half=options.half,
    )
    return ZooPlan(options.out, name, options.runs, options.population, training)


def _report(made: MadeZoo, plan: ZooPlan) -> None:
    if made.diverged:
        print(f"{made.diverged} checkpoints are left out: their weights are not finite")
    if not len(made.accuracies):
        print(f"{plan.out}: no network is left")
        return
    picture = plan.out.with_name(f"{plan.out.stem}_accuracies.png")
    save_histogram(made.accuracies, f"{len(made.accuracies)} networks of {plan.out.name}", picture)
    low, median, high = (made.accuracies.quantile(q).item() for q in (0, 0.5, 1))
    print(
        f"{plan.out}: {len(made.accuracies)} checkpoints of {plan.runs} runs, "
        f"accuracy {low:.4f} to {high:.4f}, median {median:.4f}, {made.seconds:.0f} s; histogram in {picture}"
    )


def main(arguments: Sequence[str]) -> int:
    """The command: 0 when the zoo is written, 130 when it was interrupted."""
    options = _parser().parse_args(arguments)
    chosen = device(options.device)
    data = _images(options)
    plan = _plan(options, data)
    try:
        made = make_zoo(plan, data, chosen)
    except KeyboardInterrupt:
        print("interrupted; finished networks are kept, and the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    _report(made, plan)
    return 0


if __name__ == "__main__":
    run_command(main)
