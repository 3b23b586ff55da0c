"""Train a predictor of accuracy on the weights of a zoo of transformers, and test it once.

python nfn_transformer/main.py --dataset digits --data_path data/digits_transformers.zip
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace

from nfn_transformer.cli import flags as shared_flags
from nfn_transformer.cli.arguments import add_boolean, channel_counts, number_in, positive_int, seed_list
from nfn_transformer.cli.program import run_command
from nfn_transformer.cli.training_command import TrainingCommand
from nfn_transformer.errors import UserError
from nfn_transformer.layers.base import INIT_TYPES
from nfn_transformer.models.config import (
    CLASSIFIER_MODES,
    EMBEDDING_MODES,
    ENCODER_MODES,
    GRAPH_CONVOLUTIONS,
    GRAPH_HEADS,
    ModelConfig,
)
from nfn_transformer.training.config import NETWORK, RunConfig, TrainingConfig
from nfn_transformer.training.optimizer import OPTIMIZERS

COMPLETE = ModelConfig(enc_mode="complete", cls_mode="no", emb_mode="no", dropout=0.4, ensemble=5)
"""What the complete encoder has by default: it reads whole networks, and is meant for small zoos."""

GRAPH = ModelConfig(enc_mode="graph", cls_mode="no", emb_mode="no", standardize=True)
"""What the graph encoder has by default: it reads whole networks too, and numbers of their own size do not suit it."""

DEFAULTS = {default.enc_mode: default for default in (ModelConfig(), COMPLETE, GRAPH)}
"""By encoder, where it has defaults of its own."""


def build_parser() -> argparse.ArgumentParser:
    """The command's flags, in groups."""
    parser = shared_flags.training_parser(
        "main.py", "Train a predictor of accuracy on the weights of a zoo of transformers, and test it once."
    )
    _add_model_flags(parser)
    _add_small_zoo_flags(parser)
    _add_training_flags(parser)
    _add_speed_flags(parser)
    return parser


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group, default, count = parser.add_argument_group("model"), ModelConfig(), positive_int
    group.add_argument("--model", choices=[NETWORK], default=NETWORK, help="family of the model")
    group.add_argument(
        "--enc_mode",
        choices=ENCODER_MODES,
        default=default.enc_mode,
        help="encoder blocks: inv, equivariant layers and an invariant one; complete, the whole network by what it "
        "does to synthetic signals, invariant to every symmetry; graph, the whole network as a graph of neurons and "
        "weights, invariant to permutations; statnn, statistics of each tensor; mlp, flattened weights; no, not read",
    )
    group.add_argument(
        "--cls_mode",
        choices=CLASSIFIER_MODES,
        help="classifier: layers that respect permuting of hidden neurons (hnp), of inputs and classes too (np), "
        "or permuting and scaling of hidden neurons (hnps, linear; magep, polynomial); nft, attention "
        "among neurons, which respects permuting of hidden ones; the others as above "
        f"(default: {default.cls_mode}; {COMPLETE.cls_mode} with --enc_mode complete or graph)",
    )
    group.add_argument(
        "--emb_mode",
        choices=EMBEDDING_MODES,
        help="embedding: mlp, one Linear on its weights "
        f"(default: {default.emb_mode}; {COMPLETE.emb_mode} with --enc_mode complete or graph)",
    )
    for name, what in (
        ("transformers_nfn_channels", "encoder layer (inv, statnn, mlp)"),
        ("classifier_nfn_channels", "classifier layer"),
    ):
        channels = ",".join(map(str, getattr(default, name)))
        group.add_argument(
            f"--{name}", type=channel_counts, default=channels, help=f"channels of each {what}, as in 10,10"
        )
    for name in ("num_out_classify", "num_out_embedding", "num_out_encoder"):
        what = name.rsplit("_", 1)[1]
        group.add_argument(
            f"--{name}", type=count, default=getattr(default, name), help=f"numbers from the {what} branch"
        )
    group.add_argument(
        "--init_type", choices=INIT_TYPES, default=default.init_type, help="initialisation of weight-space layers"
    )
    only = "with --enc_mode graph: "
    group.add_argument(
        "--graph_layers",
        type=count,
        help=f"{only}how often neighbours exchange messages (default: {GRAPH.graph_layers})",
    )
    group.add_argument(
        "--graph_dim",
        type=count,
        help=f"{only}numbers that each node and each edge carries (default: {GRAPH.graph_dim})",
    )
    group.add_argument(
        "--graph_conv",
        choices=GRAPH_CONVOLUTIONS,
        help=f"{only}gnn, means of messages; attention, relational attention with {GRAPH_HEADS} heads "
        f"(default: {GRAPH.graph_conv})",
    )


def _add_small_zoo_flags(parser: argparse.ArgumentParser) -> None:
    group, default = parser.add_argument_group("small zoos"), ModelConfig()
    group.add_argument(
        "--ensemble",
        type=positive_int,
        metavar="K",
        help="train K predictors side by side on one split and average their logits "
        f"(default: {default.ensemble}; {COMPLETE.ensemble} with --enc_mode complete)",
    )
    group.add_argument(
        "--dropout",
        type=number_in(float, 0, 0.99),
        help="share of hidden numbers that is dropped in training "
        f"(default: {default.dropout:g}; {COMPLETE.dropout:g} with --enc_mode complete, half of it for its inputs)",
    )
    add_boolean(
        group,
        "--standardize",
        None,
        "scale inputs by the training split: statistics, flattened weights and those of a graph to mean 0 and "
        "deviation 1, cut off at 4, what layers with symmetries read to size 1, each tensor by one number; the "
        f"complete encoder always does (default: {default.standardize}; {GRAPH.standardize} with --enc_mode graph)",
    )
    add_boolean(
        group,
        "--log_magnitudes",
        default.log_magnitudes,
        "with --standardize: statistics, flattened weights and those of a graph on a logarithmic scale",
    )
    group.add_argument(
        "--early_stopping",
        type=positive_int,
        metavar="EPOCHS",
        help="stop when so many epochs in a row have not been the best by validation tau (default: never)",
    )


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    group, default, count = parser.add_argument_group("training"), TrainingConfig(), positive_int
    group.add_argument("--epochs", type=count, default=default.epochs, help="passes over the training split")
    group.add_argument(
        "--warmup_epochs",
        type=number_in(int, 0),
        default=default.warmup_epochs,
        help="epochs over which the learning rate rises to --lr, before its cosine to 1e-5; at most --epochs",
    )
    group.add_argument("--batch_size", type=count, default=default.batch_size, help="networks per training step")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default=default.optimizer, help="rule of the updates")
    group.add_argument(
        "--lr", type=number_in(float, 0, above=True), default=default.lr, help="learning rate after the warm-up"
    )
    group.add_argument("--wd", type=number_in(float, 0), default=default.wd, help="weight decay (L2)")


def _add_speed_flags(parser: argparse.ArgumentParser) -> None:
    group, default = parser.add_argument_group("speed"), TrainingConfig()
    group.add_argument(
        "--seeds",
        type=seed_list,
        help="in place of --seed: several, as in 1,2,3, trained at once; each has its own split and run directory, "
        "seedN in --out_dir where that is given",
    )
    add_boolean(
        group,
        "--stream",
        None,
        "read every batch from the zoo's mapped cache (default: only where the zoo does not fit into half of the "
        "device's free memory); the complete encoder's few numbers of a network are always kept",
    )
    add_boolean(group, "--compile", default.compile, "compile the training step by torch.compile")
    add_boolean(
        group,
        "--cuda_graphs",
        default.cuda_graphs,
        "launch the training step's kernels together, which helps small batches on a GPU",
    )
    add_boolean(group, "--amp", default.amp, "train in bfloat16 where PyTorch's autocast thinks it safe")


def model_config(flags: argparse.Namespace) -> ModelConfig:
    """The model that the flags ask for.

    Raises:
        UserError: flags that do not go together.
    """
    default = DEFAULTS.get(flags.enc_mode, ModelConfig())
    given = {field.name: getattr(flags, field.name) for field in fields(ModelConfig)}
    given = {name: value for name, value in given.items() if value is not None}
    if flags.log_magnitudes and not given.get("standardize", default.standardize):
        raise UserError("--log_magnitudes True: is of inputs that are standardised; add --standardize True")
    of_graphs = [name for name in given if name.startswith("graph_")]
    if of_graphs and flags.enc_mode != "graph":
        name = of_graphs[0]
        raise UserError(f"--{name} {given[name]}: --enc_mode is {flags.enc_mode}; only --enc_mode graph reads it")
    config = replace(default, **given)
    return replace(config, standardize=False) if config.reads_several_sizes else config  # it is by itself


def run_config(flags: argparse.Namespace) -> RunConfig:
    """What the flags ask for."""
    training = TrainingConfig(**{field.name: getattr(flags, field.name) for field in fields(TrainingConfig)})
    return shared_flags.run_config(flags, model_config(flags), training)


COMMAND = TrainingCommand("main.py", build_parser, run_config, shares_a_run=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    return COMMAND.run(arguments)


if __name__ == "__main__":
    run_command(main)
