"""The flags that say which images or texts the networks of a zoo are trained on, and the data that they stand for."""

import argparse
from pathlib import Path

from nfn_transformer.cli.arguments import number_in, positive_int
from nfn_transformer.errors import UserError
from nfn_transformer.generation.arrays import npz_file
from nfn_transformer.generation.images import digits, idx_folder
from nfn_transformer.generation.parts import WorkFolder
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.texts import frequent_words, read_texts, text_data, vectors_source
from nfn_transformer.generation.word_vectors import corpus_vectors, word2vec_vectors


def add_task_flags(group: argparse._ArgumentGroup) -> None:
    """Declare where images or texts come from, and which of them count."""
    group.add_argument(
        "--images", type=Path, help="a folder with MNIST's idx files, or an .npz; without it scikit-learn's digits"
    )
    group.add_argument("--train_images", type=positive_int, help="train on the first so many images, or texts, only")
    group.add_argument("--test_images", type=positive_int, help="measure accuracy on the first so many only")
    group.add_argument(
        "--crop_padding", type=number_in(int, 0), default=0, help="pad train images by this, crop at random"
    )
    group.add_argument(
        "--texts", type=Path, help="a folder with train.csv and test.csv: Class Index,Title,Description (AG News)"
    )
    group.add_argument("--tokens", type=positive_int, default=32, help="words of a text that networks see")
    group.add_argument("--vocabulary", type=positive_int, default=10_000, help="most frequent words, with a vector")
    group.add_argument(
        "--word_vectors",
        type=Path,
        help="a word2vec file (text, or binary if it ends in .bin), reduced to --embed_dim by PCA; without it vectors "
        "of the train texts themselves, by SVD of their words' contexts",
    )


def task_data(options: argparse.Namespace) -> TaskData:
    """The data that the flags ask for; an unfinished zoo's own word vectors, where it has some.

    Raises:
        UserError: flags contradict each other, or something is not there.
        ZooError: a file is not what it should be.
    """
    if options.images is not None and options.texts is not None:
        raise UserError("--images and --texts: a zoo is of one or the other")
    data = _texts(options) if options.texts is not None else _images(options.images)
    for flag, part in (("--train_images", data.train), ("--test_images", data.test)):
        wanted = getattr(options, flag[2:])
        if wanted is not None and wanted > len(part.labels):
            raise UserError(f"{flag} {wanted}: there are only {len(part.labels)}")
    return data.limited(options.train_images, options.test_images)


def _images(place: Path | None) -> TaskData:
    if place is None:
        return digits()
    return npz_file(place) if place.suffix == ".npz" else idx_folder(place)


def _texts(options: argparse.Namespace) -> TaskData:
    if options.crop_padding:
        raise UserError(f"--crop_padding {options.crop_padding}: texts have no pixels")
    train, test = read_texts(options.texts)
    words = frequent_words(train.words, options.vocabulary)
    source = vectors_source(train, options.embed_dim, options.seed, options.vocabulary, options.word_vectors)
    kept = WorkFolder(options.out).kept(source)
    if options.word_vectors is not None:
        words, vectors = word2vec_vectors(options.word_vectors, words, options.embed_dim)
    elif kept is None:
        vectors = corpus_vectors(train.words, words, options.embed_dim, options.seed)
    return text_data(train, test, words, vectors if kept is None else kept[1:].numpy(), options.tokens, source)
