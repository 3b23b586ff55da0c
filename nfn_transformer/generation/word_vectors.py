"""Frozen word vectors, from the corpus itself or from a word2vec file."""

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA, TruncatedSVD

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.rms import root_mean_square
from nfn_transformer.seeding import derive_seed

WINDOW = 5
"""Number of words before and after a word that are its context."""

_LONGEST_WORD = 10_000
_MOST_DIMENSIONS = 100_000


def corpus_vectors(texts: Sequence[Sequence[str]], words: Sequence[str], dimensions: int, seed: int) -> np.ndarray:
    """Return vectors [V, D] by truncated SVD of the words' positive pointwise mutual information with their contexts.

    Columns are the left singular vectors times the roots of the singular values. They are scaled to a root mean
    square of 1 over all numbers. Source: Levy, Goldberg and Dagan 2015, "Improving Distributional Similarity with
    Lessons Learned from Word Embeddings", section 3.3.

    Raises:
        UserError: there are at most as many words as dimensions, or words have no context.
    """
    if len(words) <= dimensions:
        raise UserError(f"--embed_dim {dimensions}: expected fewer dimensions than the {len(words)} words")
    information = _pointwise_mutual_information(_context_counts(texts, words))
    if information.nnz == 0:
        raise UserError("--texts: no word stands beside others more often than by chance; --word_vectors gives vectors")
    decomposition = TruncatedSVD(dimensions, random_state=derive_seed(seed, "word vectors") % 2**32)
    scaled = decomposition.fit_transform(information)
    vectors = scaled / np.sqrt(np.maximum(decomposition.singular_values_, np.finfo(np.float64).tiny))
    return vectors / root_mean_square(vectors)


def _context_counts(texts: Sequence[Sequence[str]], words: Sequence[str]) -> sparse.csr_array:
    """Count the occurrences of each word in the context of each: [V, V], symmetric."""
    rows = {word: row for row, word in enumerate(words)}
    none = len(words)
    # Texts in one line, separated by as many absent words as a context is wide.
    line = np.array([row for text in texts for row in (*(rows.get(w, none) for w in text), *(none,) * WINDOW)])
    counts = sparse.csr_array((none + 1, none + 1))
    for distance in range(1, WINDOW + 1):
        pairs = (line[:-distance], line[distance:])
        counts += sparse.coo_array((np.ones(len(pairs[0])), pairs), shape=counts.shape).tocsr()
    counts = counts[:none, :none]
    return (counts + counts.T).tocsr()


def _pointwise_mutual_information(counts: sparse.csr_array) -> sparse.csr_array:
    """Return max(0, log(n_ij n / (n_i n_j))) of the pairs with n_ij > 0."""
    totals, pairs = counts.sum(axis=0), counts.tocoo()
    row, column = pairs.coords
    information = np.log(pairs.data * totals.sum() / (totals[row] * totals[column]))
    positive = sparse.csr_array((np.maximum(information, 0), (row, column)), shape=counts.shape)
    positive.eliminate_zeros()
    return positive


def word2vec_vectors(path: Path, words: Sequence[str], dimensions: int) -> tuple[list[str], np.ndarray]:
    """Return those of `words` that a word2vec file has, and their vectors [V, D], reduced by PCA.

    Args:
        path: word2vec's text format, or its binary one if the name ends in .bin; either also with .gz.
        words: candidates; their order is kept.
        dimensions: D.

    Raises:
        UserError: the file does not exist, its vectors are shorter than D, or it has too few of the words.
        ZooError: the file is no word2vec file.
    """
    if not path.is_file():
        raise UserError(f"--word_vectors {path}: no such file")
    candidates = set(words)
    vectors_by_word: dict[str, np.ndarray] = {}
    try:
        with _open(path) as file:
            count, length = _header(file, path)
            if length < dimensions:
                raise UserError(f"--word_vectors {path}: expected at least {dimensions} dimensions, got {length}")
            is_binary = path.name.removesuffix(".gz").endswith(".bin")
            for word, vector in (_binary if is_binary else _text)(file, count, length, path):
                if word in candidates:
                    vectors_by_word.setdefault(word, vector)
    except (OSError, EOFError, zlib.error) as error:
        raise ZooError(f"{path}: cannot be read ({error})") from None
    known = [word for word in words if word in vectors_by_word]
    if len(known) <= dimensions:
        raise UserError(f"--word_vectors {path}: expected more than {dimensions} of the texts' words, got {len(known)}")
    vectors = np.stack([vectors_by_word[word] for word in known])
    if not np.isfinite(vectors).all():
        raise ZooError(f"{path}: a vector is not finite")
    return known, vectors if length == dimensions else PCA(dimensions, svd_solver="full").fit_transform(vectors)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else open(path, "rb")


def _header(file: BinaryIO, path: Path) -> tuple[int, int]:
    sizes = file.readline(100).split()
    if len(sizes) != 2 or not all(size.isdigit() for size in sizes) or not 1 <= int(sizes[1]) <= _MOST_DIMENSIONS:
        raise ZooError(f"{path}: expected the numbers of words and of dimensions in the first line, as word2vec writes")
    return int(sizes[0]), int(sizes[1])


def _text(file: BinaryIO, count: int, length: int, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    for number in range(2, count + 2):
        parts = file.readline(_LONGEST_WORD + 100 * length).rstrip().split(b" ")
        try:
            if len(parts) != length + 1:
                raise ValueError(f"{len(parts)} columns, expected {length + 1}")
            yield parts[0].decode(errors="replace"), np.array(parts[1:], dtype=np.float64)
        except ValueError as error:
            raise ZooError(f"{path}, line {number}: not a word and {length} numbers ({error})") from None


def _binary(file: BinaryIO, count: int, length: int, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    for number in range(1, count + 1):
        word = b""
        while not word.endswith(b" "):
            byte = file.read(1)
            if not byte or len(word) > _LONGEST_WORD:
                raise ZooError(f"{path}: ends, or has no word, at word {number} of {count}")
            word += byte
        content = file.read(4 * length)
        if len(content) < 4 * length:
            raise ZooError(f"{path}: ends in the vector of word {number} of {count}")
        vector = np.array(struct.unpack(f"<{length}f", content))
        yield word.strip().decode(errors="replace"), vector
