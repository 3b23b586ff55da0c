"""Data of a zoo's classification task, images or texts, that flags ask for."""

import argparse
from pathlib import Path

from nfn_transformer.errors import UserError
from nfn_transformer.generation.images import ImageData, digits, read_idx_folder
from nfn_transformer.generation.npz_files import read_npz
from nfn_transformer.generation.samples import TaskData
from nfn_transformer.generation.texts import build_text_data, frequent_words, read_texts, vectors_key
from nfn_transformer.generation.word_vectors import corpus_vectors, word2vec_vectors
from nfn_transformer.generation.work_folder import WorkFolder


def task_data(options: argparse.Namespace) -> TaskData:
    """Read the data that the flags ask for; word vectors of an unfinished zoo are those that it saved.

    Raises:
        UserError: a flag does not fit the data, or a file does not exist.
        ZooError: a file has another format.
    """
    data = _texts(options) if options.texts is not None else read_images(options.images)
    for flag, part in (("--train_images", data.train), ("--test_images", data.test)):
        count = getattr(options, flag[2:])
        if count is not None and count > len(part.labels):
            raise UserError(f"{flag} {count}: expected at most {len(part.labels)}")
    return data.limited(options.train_images, options.test_images)


def read_images(path: Path | None) -> ImageData:
    """Return the labelled images in a folder of idx files or in an .npz; None: scikit-learn's digits."""
    if path is None:
        return digits()
    return read_npz(path) if path.suffix == ".npz" else read_idx_folder(path)


def _texts(options: argparse.Namespace) -> TaskData:
    if options.crop_padding:
        raise UserError(f"--crop_padding {options.crop_padding}: cannot be combined with --texts")
    train, test = read_texts(options.texts)
    vocabulary = frequent_words(train.words, options.vocabulary)
    key = vectors_key(train, options.embed_dim, options.seed, options.vocabulary, options.word_vectors)
    saved = WorkFolder(options.out).load_tensor(key)
    if options.word_vectors is not None:
        vocabulary, vectors = word2vec_vectors(options.word_vectors, vocabulary, options.embed_dim)
    elif saved is None:
        vectors = corpus_vectors(train.words, vocabulary, options.embed_dim, options.seed)
    if saved is not None:
        vectors = saved[1:].numpy()
    return build_text_data(train, test, vocabulary, vectors, options.tokens, key)
