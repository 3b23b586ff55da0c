"""Make a zoo: train many small networks at once and write them in the layout of published zoos.

    python nfn_transformer/make_zoo.py --out data/my_zoo.zip --runs 200
    python nfn_transformer/make_zoo.py --out data/my_sirens.zip --family siren --images mnist/ --runs 1000
    python nfn_transformer/make_zoo.py --out data/my_cnns.zip --family cnn --images mnist/
    python nfn_transformer/make_zoo.py --out data/my_vits --family vit --images mnist/
    python nfn_transformer/make_zoo.py --out data/mails.zip --dataset mails --texts mails/ --runs 100

The same command goes on where an interrupted one has stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nfn_transformer.bounded_text import parse_yaml
from nfn_transformer.bundled import RECIPES, find_bundled
from nfn_transformer.cli.command_line import (
    Parser,
    add_boolean,
    check_device_name,
    number_in,
    positive_int,
    run_command,
    seed_number,
)
from nfn_transformer.errors import UserError
from nfn_transformer.generation.training_plan import PERCENT, SNAPSHOT_UNITS, snapshot_names
from nfn_transformer.launch.flags import add_launcher_flags, launcher_parameters

_Defaults = dict[str, int | str | tuple[int, ...] | None]

_IMAGES_OR_TEXTS: _Defaults = {"embed_dim": 16, "n_attention_heads": 2, "patch": 2, "tokens": 32, "vocabulary": 10_000}
_SMALL_TRANSFORMERS: _Defaults = {
    **{"runs": 600, "embed_dim": (32,), "n_attention_heads": (4,), "n_layers": (2,), "epochs": (6, 9, 12, 18)},
    **{"batch_size": 16, "snapshots": "100", "tokens": 32, "vocabulary": 1000},
}
_LANGUAGE_MODELS: _Defaults = {**_SMALL_TRANSFORMERS, "runs": 400, "tokens": 64, "vocabulary": 128}

DEFAULTS: dict[str, _Defaults] = {
    "transformer": {
        **{"runs": 1600, "n_layers": 2, "hidden": 32, "epochs": 48, "batch_size": 32, "snapshots": "75"},
        **_IMAGES_OR_TEXTS,
    },
    "siren": {"n_layers": 2, "hidden": 32},
    "cnn": {"runs": 600, "hidden": 16, "epochs": 18, "batch_size": 32, "snapshots": "100"},
    "vit": _SMALL_TRANSFORMERS,
    "simple_vit": _SMALL_TRANSFORMERS,
    "bert": _SMALL_TRANSFORMERS,
    "gpt": _LANGUAGE_MODELS,
    "llama": _LANGUAGE_MODELS,
}
"""Family -> its defaults of the flags that have another one, or none, in other families.

The depth of CNNs follows from their images.
"""

_STANDARD = ("vit", "simple_vit", "bert", "gpt", "llama")
"""Families of standard transformers; a flag of their sizes takes several values, of which each network draws one."""

_FAMILIES_OF_FLAGS = {
    ("embed_dim", "n_attention_heads"): ("transformer", *_STANDARD),
    ("patch",): ("transformer", "vit", "simple_vit"),
    ("crop_padding", "word_vectors"): ("transformer",),
    ("images",): ("transformer", "siren", "cnn", "vit", "simple_vit"),
    ("texts",): ("transformer", "bert"),
    ("text",): ("gpt", "llama"),
    ("tokens", "vocabulary"): ("transformer", "bert", "gpt", "llama"),
    ("epochs", "batch_size", "snapshots", "snapshot_unit"): ("transformer", "cnn", *_STANDARD),
    ("copies", "steps", "decibels"): ("siren",),
    ("dataset",): ("transformer", "siren", "cnn"),
}
"""Flags -> the families that take them; all families take the others."""

_REQUIRED = {"texts": ("bert",)}
"""Flag -> the families that have no data without it."""

_SIREN_RECIPE = ("copies", "decibels", "hidden", "n_layers", "runs", "seed", "steps")
"""Keys of a recipe of SIRENs: names of flags."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = Parser(
        "make_zoo.py",
        "Train small networks, many at once, and write them as a zoo. "
        "The same command goes on where an interrupted one has stopped.",
        (
            "python nfn_transformer/make_zoo.py --out data/small.zip --runs 200",
            "python nfn_transformer/make_zoo.py --out data/shapes.zip --recipe shapes.yaml --seed 3",
            "python nfn_transformer/make_zoo.py --out data/my_sirens.zip --family siren --recipe digit_sirens.yaml",
        ),
    )
    _add_zoo_flags(parser.add_argument_group("the zoo"))
    _add_task_flags(parser.add_argument_group("images or texts"))
    _add_network_flags(parser.add_argument_group("the networks"))
    _add_siren_flags(parser.add_argument_group("SIRENs"))
    group = parser.add_argument_group("where it runs")
    group.add_argument(
        "--population",
        type=_population,
        default="auto",
        help="networks trained at once; auto: as many as half of the device's free memory holds, on a CPU at most 64; "
        "SIRENs 128, CNNs and standard transformers 8 on a CPU",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add_launcher_flags(group, "processes that train, each its share of the populations,", "one for each population")
    group.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # file that a worker writes in the end
    return parser


def _add_zoo_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--out", type=Path, required=True, help="where it goes: a new folder, or a zip if it ends so")
    group.add_argument(
        "--family",
        choices=tuple(DEFAULTS),
        default="transformer",
        help="what networks are made: the released transformers; SIRENs, one for each image; CNNs by the Small CNN "
        "Zoo's recipe; or standard transformers: ViTs, BERTs, GPT-2s or Llamas, as Hugging Face has them, or "
        "vit_pytorch's SimpleViTs",
    )
    group.add_argument(
        "--dataset",
        default="digits",
        help="its name: metadata/NAME.csv and NAME/*.pt; of SIRENs and CNNs NAME/weights.npy and tables; not of "
        "standard transformers",
    )
    group.add_argument(
        "--runs",
        type=positive_int,
        help="networks to train, with drawn hyperparameters: by default 1600 transformers, 600 CNNs, ViTs or BERTs, "
        "400 GPT-2s or Llamas; of SIRENs the first so many images, all by default",
    )
    group.add_argument(
        "--recipe",
        type=Path,
        help="file with the values that runs draw or combine, or the name of a bundled one (shapes.yaml); of SIRENs a "
        "file with values of flags",
    )
    group.add_argument("--seed", type=seed_number, default=1, help="what all random choices depend on")
    group.add_argument(
        "--snapshots",
        help="checkpoints of a run: numbers in --snapshot_unit, and best (after the epoch with the highest test "
        "accuracy, as in the released zoo; of transformer alone); training ends at the last of them; by default 75, of "
        "other families 100",
    )
    group.add_argument(
        "--snapshot_unit",
        choices=SNAPSHOT_UNITS,
        default=PERCENT,
        help="percent of a run's training, where 1 is its first epoch, or epochs; a run has none beyond its own end",
    )
    add_boolean(group, "--half", False, "store weights in half precision; accuracies are those of the stored weights")
    add_boolean(group, "--dry_run", False, "list the runs and estimate time and size, but train nothing")


def _add_task_flags(group: argparse._ArgumentGroup) -> None:
    """Declare the flags of images and texts."""
    group.add_argument(
        "--images",
        type=Path,
        help="a folder with MNIST's idx files, or an .npz; without it scikit-learn's digits, 1,000 to train and 797 to "
        "test in a fixed order, see docs/tasks.md",
    )
    group.add_argument(
        "--train_images", type=positive_int, help="train on the first so many images, texts or sequences only"
    )
    group.add_argument(
        "--test_images",
        type=positive_int,
        help="measure accuracy on the first so many only; as many after these are the fresh ones of standard "
        "transformers",
    )
    group.add_argument(
        "--crop_padding", type=number_in(int, 0), default=0, help="pad train images by this, crop at random"
    )
    group.add_argument(
        "--texts", type=Path, help="a folder with train.csv and test.csv: Class Index,Title,Description (AG News)"
    )
    group.add_argument(
        "--text", type=Path, help="a text in UTF-8 for gpt and llama; without it the bundled data/documentation.txt"
    )
    group.add_argument(
        "--tokens", type=positive_int, help="words of a text that networks see, 32; characters of a sequence, 64"
    )
    group.add_argument(
        "--vocabulary",
        type=positive_int,
        help="most frequent words, with a vector: 10000, of bert 1000; characters of gpt and llama: 128",
    )
    group.add_argument(
        "--word_vectors",
        type=Path,
        help="a word2vec file (text, or binary if it ends in .bin), reduced to --embed_dim by PCA; without it vectors "
        "of the train texts themselves, by SVD of their words' contexts",
    )


def _add_network_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--embed_dim",
        type=_counts,
        help="width D of the tokens, 16; of standard transformers 32, or several of which each draws one: 24,32,48",
    )
    group.add_argument(
        "--n_attention_heads",
        type=_counts,
        help="attention heads of each block, 2; of standard transformers 4, or several; they divide D",
    )
    group.add_argument(
        "--n_layers",
        type=_counts,
        help="blocks, 2, or several for standard transformers; hidden layers of SIRENs, 2; convolutions, 3, or as many "
        "as small images have room for",
    )
    group.add_argument(
        "--hidden",
        type=_counts,
        help="hidden width D_A of each block's MLP, 32; of standard transformers 2 D, or several; neurons of a SIREN's "
        "hidden layers, 32; feature maps, 16",
    )
    group.add_argument(
        "--patch",
        type=positive_int,
        help="patch size, 2; of vit and simple_vit a quarter of a side; it divides the image's sides",
    )
    group.add_argument(
        "--epochs", type=_counts, help="length of a training: 48; of CNNs 18; of standard transformers one of 6,9,12,18"
    )
    group.add_argument("--batch_size", type=positive_int, help="samples in a batch of each network: 32")


def _add_siren_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--copies", type=number_in(int, 0), default=0, help="further fits of each image")
    group.add_argument("--steps", type=positive_int, default=1000, help="most steps of a fit")
    group.add_argument(
        "--decibels",
        type=number_in(float, 0, 100, above=True),
        default=40.0,
        help="peak signal-to-noise ratio at which a fit ends before that",
    )


def _counts(text: str) -> int | tuple[int, ...]:
    """Return one positive number, or several."""
    counts = tuple(positive_int(part) for part in text.split(","))
    return counts if "," in text else counts[0]


def _population(text: str) -> int | None:
    return None if text == "auto" else positive_int(text)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags; a recipe of SIRENs stands for flags that are not given.

    Raises:
        UserError: a flag is not one of the family's, or a recipe has another key.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    for names, families in _FAMILIES_OF_FLAGS.items():
        given = [name for name in names if getattr(options, name) != parser.get_default(name)]
        if given and options.family not in families:
            raise UserError(f"--{given[0]} requires --family {' or '.join(families)}")
    if options.family == "siren" and options.recipe is not None:
        options = parser.parse_args([*_siren_recipe(options.recipe), *arguments])
    for name, value in DEFAULTS[options.family].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in ("embed_dim", "n_attention_heads", "n_layers", "hidden", "epochs"):
        value = getattr(options, name)
        if isinstance(value, tuple) and options.family not in _STANDARD:
            raise UserError(f"--{name} {','.join(map(str, value))}: expected one number with --family {options.family}")
        if isinstance(value, int) and options.family in _STANDARD:
            setattr(options, name, (value,))
    return options


def _siren_recipe(path: Path) -> list[str]:
    """Return the flags that a recipe of SIRENs stands for."""
    try:
        content = parse_yaml(find_bundled(path, RECIPES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--recipe {path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"--recipe {path}: expected keys with values, as in scripts/zoos/digit_sirens.yaml")
    if unknown := [key for key in content if key not in _SIREN_RECIPE]:
        raise UserError(f"--recipe {path}: unknown key '{unknown[0]}', expected {', '.join(_SIREN_RECIPE)}")
    return [text for key, value in content.items() for text in (f"--{key}", str(value))]


def _check_data(options: argparse.Namespace) -> None:
    """Check that the data that flags name are there, and are of one task.

    Raises:
        UserError: they are not.
    """
    if options.images is not None and options.texts is not None:
        raise UserError(f"--images {options.images}: cannot be combined with --texts")
    for flag, families in _REQUIRED.items():
        if options.family in families and getattr(options, flag) is None:
            raise UserError(f"--family {options.family} requires --{flag}")
    for flag in ("images", "texts", "text", "word_vectors"):
        path = getattr(options, flag)
        if path is not None and not find_bundled(path).exists():
            is_folder = flag == "texts" or (flag == "images" and path.suffix != ".npz")
            raise UserError(f"--{flag} {path}: no such {'folder' if is_folder else 'file'}")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 0 once the zoo is written, 130 if interrupted."""
    options = _parse(arguments)
    launcher_parameters(options)
    check_device_name(options.device)
    name = options.dataset
    if name in ("", ".", "..", "metadata") or any(character in name for character in "/\\"):
        raise UserError(f"--dataset '{name}': expected the name of a folder beside metadata/")
    if not options.out.parent.is_dir():
        raise UserError(f"--out {options.out}: no folder {options.out.parent}")
    _check_data(options)
    program = [str(Path(__file__).resolve()), *arguments]
    if options.family != "transformer":
        from nfn_transformer.cli.make_array_zoo_command import make_array_zoo_by_flags

        return make_array_zoo_by_flags(options, program)
    snapshots = snapshot_names(options.snapshots, options.snapshot_unit)
    # PyTorch and all that training needs take seconds to import: flags are checked before.
    from nfn_transformer.cli.make_zoo_command import make_zoo_by_flags

    return make_zoo_by_flags(options, snapshots, program)


if __name__ == "__main__":
    run_command(main)
